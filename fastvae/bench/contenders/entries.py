"""The list of contenders that a device can run, and the choice among them by name."""

import fnmatch
import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
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
    """List the loops of the tutorial, torch, jax and fastvae, and the floors.

    ``compiled`` adds those that torch compiles. jax's are only there if :func:`left_out` names none of them.
    """
    entries = [Entry("tutorial", "tutorial", partial(TutorialLoop, workers=0))]
    if workload.steps is None:  # after a slice, workers would keep loading while others have their turns
        entries.append(Entry("tutorial, 2 workers", "tutorial", partial(TutorialLoop, workers=2)))
    entries += _torch(workload.device, compiled)
    if not left_out(workload.device):
        entries += [
            Entry(name, "jax", partial(_jax, precision=name.split()[1])) for name in _jax_names(workload.device)
        ]
    entries += _fastvae(workload.device, compiled)
    return entries + floors(workload.device)


def against_pythae(workload: Workload, compiled: bool = True) -> list[Entry]:
    """List pythae's trainer, fastvae's loops and the floors."""
    return [Entry("pythae", "pythae", PythaeLoop), *_fastvae(workload.device, compiled), *floors(workload.device)]


def left_out(device: torch.device) -> dict[str, str]:
    """Return the contenders that cannot race here, and for each of them why, with the remedy."""
    missing = [package for package in ("jax", "optax") if importlib.util.find_spec(package) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        why = f"{' and '.join(missing)} {verb} not installed: pip install fastvae[jax]"
    elif device.type == "cuda" and not _jax_has_gpu():
        why = "jax has no GPU here: pip install 'jax[cuda13]'"
    else:
        return {}
    return dict.fromkeys(_jax_names(device), why)


def select(patterns: Sequence[str], *fields: list[Entry], absent: Mapping[str, str] | None = None) -> list[list[Entry]]:
    """Keep, in each list, the contenders whose names match one of the shell patterns; all, without patterns.

    ``absent`` are those of :func:`left_out`. Raises InputError for a pattern that matches none, or only absent ones.
    """
    names = dict.fromkeys(entry.name for field in fields for entry in field)
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            for name in fnmatch.filter(absent or {}, pattern):
                raise InputError(f"--contenders {pattern!r}: {(absent or {})[name]}")
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


def _jax_names(device: torch.device) -> tuple[str, ...]:
    return tuple(f"jax {precision}" for precision in _precisions(device))


def _jax(workload: Workload, seed: int, precision: str) -> Contender:
    _leave_memory_to_torch()
    from .jax.loop import JaxLoop  # noqa: PLC0415 -- optional

    return JaxLoop(workload, seed, precision)


def _jax_has_gpu() -> bool:
    _leave_memory_to_torch()
    import jax  # noqa: PLC0415 -- optional

    try:
        return bool(jax.devices("gpu"))
    except RuntimeError:
        return False


def _leave_memory_to_torch() -> None:
    """Let jax take memory of a GPU as it needs it. By default it takes three quarters at its first call."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def _precisions(device: torch.device) -> tuple[str, ...]:
    """Return fp32, and bf16 unless the device emulates it."""
    return ("fp32", "bf16") if has_fast_bf16(device) else ("fp32",)
