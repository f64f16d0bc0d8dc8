"""The list of contenders that a device can run, and the choice among them by name."""

import fnmatch
from collections.abc import Callable, Sequence
from functools import partial

import torch

from fastvae.train.measure.autotune import has_fast_bf16
from fastvae.utils.errors import InputError

from . import graphs
from .fastvae import FastvaeLoop
from .floor import Floor
from .pythae import PythaeLoop
from .torch_loop import TorchLoop
from .torch_one_graph import TorchOneGraph
from .tutorial import TutorialLoop
from .workload import Contender, Entry, Workload

FLOOR = "floor"  # the start of a floor's name


def contenders(workload: Workload, compiled: bool = True) -> list[Entry]:
    """List the tutorial's, torch's and fastvae's loops and the floors. ``compiled`` adds those that torch compiles."""
    entries = [Entry("tutorial", "tutorial", partial(TutorialLoop, workers=0))]
    if workload.steps is None:  # after a slice, workers would keep loading while others have their turns
        entries.append(Entry("tutorial, 2 workers", "tutorial", partial(TutorialLoop, workers=2)))
    entries += _torch(workload.device, compiled)
    entries += _fastvae(workload.device, compiled)
    return entries + floors(workload.device)


def against_pythae(workload: Workload, compiled: bool = True) -> list[Entry]:
    """List pythae's trainer, fastvae's loops and the floors."""
    return [Entry("pythae", "pythae", PythaeLoop), *_fastvae(workload.device, compiled), *floors(workload.device)]


def select(patterns: Sequence[str], *fields: list[Entry]) -> list[list[Entry]]:
    """Keep, in each list, the contenders whose names match one of the shell patterns; all, without patterns.

    Raises InputError for a pattern that matches none.
    """
    names = dict.fromkeys(entry.name for field in fields for entry in field)
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise InputError(
                f"--contenders {pattern!r} matches none of {', '.join(map(repr, names))}: use a full name, or * for a "
                "part of it"
            )
    wanted = {name for name in names if not patterns or any(fnmatch.fnmatchcase(name, each) for each in patterns)}
    return [[entry for entry in field if entry.name in wanted] for field in fields]


def floors(device: torch.device) -> list[Entry]:
    """List the floors, one for each precision of the device."""
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
        loops: dict[str, Callable[..., Contender]] = {
            said: partial(TorchLoop, mode=mode) for mode, said in modes.items()
        }
        if graphs.captures(device):
            loops["one graph"] = partial(TorchOneGraph, mode=None)
            if compiled:
                loops["compile, one graph"] = partial(TorchOneGraph, mode="default")
        entries += [
            Entry(f"torch {precision}, {said}", "torch", partial(loop, precision=precision))
            for said, loop in loops.items()
        ]
    return entries


def _fastvae(device: torch.device, compiled: bool) -> list[Entry]:
    executions = ("eager", "traced", "compiled") if compiled else ("eager", "traced")
    return [
        Entry("fastvae train", "fastvae", FastvaeLoop),
        *(
            Entry(
                f"fastvae {precision}, {execution}",
                "fastvae",
                partial(FastvaeLoop, precision=precision, execution=execution),  # type: ignore[arg-type]
            )
            for precision in _precisions(device)
            for execution in executions
        ),
    ]


def _precisions(device: torch.device) -> tuple[str, ...]:
    """Return fp32, and bf16 unless the device emulates it."""
    return ("fp32", "bf16") if has_fast_bf16(device) else ("fp32",)
