"""Who takes part: every contender that a device can run."""

import fnmatch
from collections.abc import Callable, Sequence
from functools import partial

import torch

from fastvae.bench.contenders.workload import Contender, Entry, Task
from fastvae.train.measure.autotune import has_fast_bf16
from fastvae.utils.errors import InputError

from . import graphs
from .engine import Fastvae
from .floor import Floor
from .loops import Loop
from .one_graph import OneGraph
from .pythae import Pythae
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


def chosen(patterns: Sequence[str], *fields: list[Entry]) -> list[list[Entry]]:
    """Choose, in each field, those whose names match one of the shell patterns; all if there is none.

    Raises InputError for a pattern that matches nobody.
    """
    names = dict.fromkeys(entry.name for field in fields for entry in field)
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise InputError(
                f"--contenders {pattern!r} matches none of {', '.join(map(repr, names))}: use a whole name, or * for a "
                "part of it"
            )
    wanted = {name for name in names if not patterns or any(fnmatch.fnmatchcase(name, each) for each in patterns)}
    return [[entry for entry in field if entry.name in wanted] for field in fields]


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
    entries = []
    for precision in _precisions(device):
        loops: dict[str, Callable[..., Contender]] = {said: partial(Loop, mode=mode) for mode, said in modes.items()}
        if graphs.captures(device):
            loops["one graph"] = partial(OneGraph, mode=None)
            if compiled:
                loops["compile, one graph"] = partial(OneGraph, mode="default")
        entries += [
            Entry(f"torch {precision}, {said}", "torch", partial(loop, precision=precision))
            for said, loop in loops.items()
        ]
    return entries


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
