"""Who takes part: every contender that a device can run."""

from functools import partial

import torch

from ..train.autotune import has_fast_bf16
from .floor import Floor
from .loops import Loop
from .ours import Fastvae
from .pythae import Pythae
from .task import Entry, Task
from .tutorial import Tutorial

FLOOR = "floor"  # the start of a floor's name


def contenders(task: Task, compiled: bool = True) -> list[Entry]:
    """Tutorial, torch and fastvae for a preset. ``compiled``: with those that compile, which takes minutes."""
    workers = (0,) if task.steps is not None else (0, 2)  # in slices, they would fetch on during the others' turns
    return [
        *(
            Entry("tutorial" + (f", {count} workers" if count else ""), "tutorial", partial(Tutorial, workers=count))
            for count in workers
        ),
        *_torch(task.device, compiled),
        *_fastvae(task.device, compiled),
        *floors(task.device),
    ]


def against_pythae(task: Task, compiled: bool = True) -> list[Entry]:
    """Pythae's trainer and fastvae."""
    return [Entry("pythae", "pythae", Pythae), *_fastvae(task.device, compiled), *floors(task.device)]


def floors(device: torch.device) -> list[Entry]:
    return [
        Entry(f"{FLOOR}, {precision}", "floor", partial(Floor, precision=precision))
        for precision in _precisions(device)
    ]


def _torch(device: torch.device, compiled: bool) -> list[Entry]:
    modes: dict[str | None, str] = {None: "eager"}
    if compiled:
        modes["default"] = "compile"
        if device.type == "cuda":
            modes |= {mode: f"compile, {mode}" for mode in ("reduce-overhead", "max-autotune")}
    return [
        Entry(f"torch {precision}, {said}", "torch", partial(Loop, precision=precision, mode=mode))
        for precision in _precisions(device)
        for mode, said in modes.items()
    ]


def _fastvae(device: torch.device, compiled: bool) -> list[Entry]:
    executions = ("eager", "traced", "compiled") if compiled else ("eager", "traced")
    return [
        Entry("fastvae train", "fastvae", Fastvae),
        *(
            Entry(
                f"fastvae {precision}, {execution}",
                "fastvae",
                partial(Fastvae, precision=precision, execution=execution),  # type: ignore[arg-type]
            )
            for precision in _precisions(device)
            for execution in executions
        ),
    ]


def _precisions(device: torch.device) -> tuple[str, ...]:
    """fp32, and bf16 where the device does not emulate it."""
    return ("fp32", "bf16") if has_fast_bf16(device) else ("fp32",)
