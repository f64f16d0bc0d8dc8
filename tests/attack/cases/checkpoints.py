"""Hostile run folders: checkpoints with a correct checksum and wrong content, evaluated."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from case import Case
from inputs import forge
from place import Place
from torch import Tensor

from .configs import EVALUATE

Tensors = Callable[[dict[str, Tensor]], object]
Values = Callable[[dict[str, Any]], object] | str


def same(_: object) -> None:
    """Change nothing."""


def each(convert: Callable[[Tensor], Tensor]) -> Tensors:
    """Return a change that converts all weights."""
    return lambda tensors: tensors.update({n: convert(t) for n, t in tensors.items() if n.startswith("model.")})


def value(name: str, new: object) -> Values:
    """Return a change that sets one value."""
    return lambda values: values.update({name: new})


def without(name: str) -> Values:
    """Return a change that removes one value."""
    return lambda values: values.pop(name)


INT8 = each(lambda weights: weights.to(torch.int8))
_WORDS = "model.decoder.0.bias\x1b[31m\n"
_FORGED: tuple[tuple[str, str, Tensors, Values], ...] = (
    ("K10", "weights as int8", INT8, same),
    ("K11", "weights as bool", each(lambda weights: weights > 0), same),
    ("K12", "weights of another shape", each(lambda weights: weights[:1]), same),
    ("K14", "values: not JSON", same, "not JSON"),
    ("K15", "values: a list", same, "[1, 2]"),
    ("K16", "values: 100,000 brackets", same, "[" * 100_000),
    ("K17", "values without epoch", same, without("epoch")),
    ("K18", 'values.epoch "x"', same, value("epoch", "x")),
    ("K19", "values.epoch -1", same, value("epoch", -1)),
    ("K20", "values.epoch 10**30", same, value("epoch", 10**30)),
    ("K22", "a weight with escape sequences in its name", lambda t: t.update({_WORDS: torch.zeros(1)}), same),
    ("K23", "no weights at all", lambda t: [t.pop(name) for name in list(t) if name.startswith("model.")], same),
    ("K24", "weights as complex numbers", each(lambda weights: weights.to(torch.complex64)), same),
)


def build(tensors: Tensors, values: Values, command: tuple[str, ...], place: Place) -> tuple[str, ...]:
    """Forge the only checkpoint of a run."""
    forge(place.copy_run(), tensors, values)
    return command


def _header(header: bytes, place: Place) -> tuple[str, ...]:
    run = place.copy_run()
    (path,) = run.glob("checkpoints/step-*")
    path.write_bytes(header)
    return EVALUATE


_PAST = b'{"a": {"dtype": "F32", "shape": [1073741824], "data_offsets": [0, 4294967296]}}'
_HEADERS = (
    ("K01", "an empty file", b""),
    ("K02", "a header of 2**63 bytes", (2**63).to_bytes(8, "little") + b"{}"),
    ("K03", "a header of brackets", (90_000).to_bytes(8, "little") + b"[" * 90_000),
    ("K04", "a pickle", b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x05>RAN\x85R."),
    ("K05", "offsets past the end", len(_PAST).to_bytes(8, "little") + _PAST + bytes(4)),
)  # fmt: skip
_QUICK = {"K10", "K14", "K17", "K13"}
CASES = [
    *(Case(id=name, what=what, build=partial(_header, content)) for name, what, content in _HEADERS),
    *(
        Case(id=name, what=what, build=partial(build, tensors, values, EVALUATE), quick=name in _QUICK)
        for name, what, tensors, values in _FORGED
    ),
    Case(
        id="K13",
        what="weights all NaN",
        build=partial(build, each(lambda weights: weights * torch.nan), same, EVALUATE),
        expect="either",
        quick=True,
    ),
]
