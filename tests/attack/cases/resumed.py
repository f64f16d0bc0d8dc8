"""Hostile run folders, resumed: forged checkpoints and metrics."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from case import Case
from place import Place
from undisturbed import RESUME, went_on

from .checkpoints import INT8, Tensors, Values, build, same, value, without

EXTRA = torch.zeros(3)


def _group(name: str, new: object) -> Values:
    return lambda values: values["optimizer"]["groups"][0].update({name: new})


def _groups(change: Callable[[list[Any]], object]) -> Values:
    return lambda values: change(values["optimizer"]["groups"])


def _tensor(name: str) -> Tensors:
    return lambda tensors: tensors.update({name: EXTRA.clone()})


def _no_optimizer(tensors: dict[str, Any]) -> None:
    for name in [name for name in tensors if name.startswith("optimizer.")]:
        del tensors[name]


_METER = {"images": 0, "seconds": 0.0, "__class__": 1}
_FORGED: tuple[tuple[str, str, Tensors, Values], ...] = (
    ("R01", "optimiser tensor of index 99999999999", _tensor("optimizer.99999999999.exp_avg"), same),
    ("R02", "optimizer.noint", _tensor("optimizer.noint.exp_avg"), same),
    ("R03", "optimizer.5 without a key", _tensor("optimizer.5"), same),
    ("R04", "exp_avg of another shape", _tensor("optimizer.0.exp_avg"), same),
    ("R05", "no optimiser state", _no_optimizer, same),
    ("R06", "lr: a word", same, _group("lr", "x")),
    ("R07", "eps: null", same, _group("eps", None)),
    ("R08", 'betas ["x", "y"]', same, _group("betas", ["x", "y"])),
    ("R09", "step -5", same, value("step", -5)),
    ("R10", 'step "x"', same, value("step", "x")),
    ("R11", "epoch 10**9", same, value("epoch", 10**9)),
    ("R12", "loader state {}", same, value("loader", {})),
    ("R13", "loader null", same, value("loader", None)),
    ("R14", "meter with another keyword", same, value("meter", _METER)),
    ("R15", "weights as int8", INT8, same),
    ("R16", "optimiser: null", same, value("optimizer", None)),
    ("R17", "values: a list", same, "[1]"),
    ("R18", "params [0, 0, 0]", same, _group("params", [0, 0, 0])),
    ("R19", "two groups", same, _groups(lambda groups: groups.append(dict(groups[0])))),
    ("R20", "best: a string", same, value("best", "x")),
    ("R21", "no sums", lambda tensors: tensors.pop("sums"), same),
    ("R22", "sums of four words of bool", lambda t: t.update({"sums": torch.ones(4, dtype=torch.bool)}), same),
    ("R23", "generator of the wrong size", lambda t: t.update({"generator.cpu": torch.zeros(1, 3).byte()}), same),
    ("R24", "noise of the wrong size", lambda t: t.update({"noise": torch.zeros(7, dtype=torch.int64)}), same),
    ("R25", "step missing", same, without("step")),
    ("R26", "loader.step -1", same, value("loader", {"epoch": 3, "step": -1})),
    ("R27", "optimiser state NaN as int64", lambda t: t.update({"optimizer.0.step": torch.zeros(1, 1).long()}), same),
)

# Lines of metrics.jsonl that fastvae did not write may be dropped or refused.
_METRICS = (
    ("S20", '5, [] and step "x"', b'5\n[]\n{"epoch": 1, "step": "x", "split": "train"}\n'),
    ("S21", "a line without split", b'{"epoch": 1, "step": 12}\n'),
    ("S22", "100,000 brackets", b"[" * 100_000 + b"\n"),
    ("S23", "a loss of words", b'{"epoch": 1, "step": 12, "split": "test", "loss": "x", "nll": [], "kl": {}}\n'),
    ("S24", "a loss of 10**400", b'{"epoch": 1, "step": 12, "split": "test", "loss": 1' + b"0" * 400 + b"}\n"),
)


def _metrics(lines: bytes, place: Place) -> tuple[str, ...]:
    with (place.copy_run() / "metrics.jsonl").open("ab") as file:
        file.write(lines)
    return RESUME


def _whole(place: Place) -> tuple[str, ...]:
    place.copy_run()
    return RESUME


# Values that are not read, or that change no weight, may be ignored.
_HARMLESS = {"R06", "R14", "R22", "R23"}
_QUICK = {"R01", "R05", "R10"}
CASES = [
    Case(id="R00", what="a whole run, resumed", build=_whole, expect="right", check=went_on, quick=True),
    *(
        Case(
            id=name,
            what=f"resume: {what}",
            build=partial(build, tensors, values, RESUME),
            expect="either" if name in _HARMLESS else "refused",
            check=went_on,
            quick=name in _QUICK,
        )
        for name, what, tensors, values in _FORGED
    ),
    *(
        Case(
            id=name,
            what=f"metrics.jsonl with {what}; resume",
            build=partial(_metrics, lines),
            expect="either",
            check=went_on,
            quick=name == "S21",
        )
        for name, what, lines in _METRICS
    ),
]
