"""The content of a run's files as types, and the function that checks it."""

from typing import Any, TypeVar

from typeguard import CollectionCheckStrategy, TypeCheckError, check_type
from typing_extensions import NotRequired, TypedDict, get_type_hints, is_typeddict

from fastvae.utils.errors import InputError

Kind = TypeVar("Kind")


class Data(TypedDict):
    """The images of a run: the shape (C, H, W) of one, their number, the fingerprint of their content."""

    shape: list[int]
    train: NotRequired[int]
    test: NotRequired[int]
    fingerprint: NotRequired[str]


class Change(TypedDict):
    """Settings that changed as a run resumed at a step: their values before and after."""

    step: int
    settings: dict[str, list[Any]]


class Description(TypedDict):
    """config.json."""

    settings: dict[str, Any]
    data: Data
    agent: NotRequired[str | None]
    own_model: NotRequired[bool]
    changes: NotRequired[list[Change]]


class Line(TypedDict):
    """A line of metrics.jsonl."""

    epoch: int
    step: int
    split: str
    loss: float
    nll: float
    kl: float


class Mark(TypedDict):
    """The moment at which weights were saved."""

    epoch: int
    step: int


class Optimizer(TypedDict):
    """The part of an optimiser's state dict that is not tensors."""

    scalars: dict[str, float | None]
    groups: list[dict[str, Any]]


class Seen(TypedDict):
    """The images of the running epoch so far, and the seconds they took."""

    seconds: float
    images: int


class BestLoss(TypedDict):
    """The smallest test loss so far, and its epoch."""

    loss: float | None
    epoch: int


class Values(Mark):
    """The values that a checkpoint holds beside its tensors."""

    loader: Mark
    meter: Seen
    optimizer: Optimizer
    scaler: dict[str, float]
    best: NotRequired[BestLoss]
    batch_size: NotRequired[int]
    origin: NotRequired[Mark]


def is_a(value: object, kind: type[object]) -> bool:
    """Return whether a value read from a file has the type ``kind``, down to its last element."""
    try:
        check(value, kind, "")
    except InputError:
        return False
    return True


def check(value: object, kind: type[Kind], label: str) -> Kind:
    """Return a value read from a file as the type ``kind``, without keys that a newer version may have added.

    Raises InputError, naming ``label``, if it has another type.
    """
    try:
        return check_type(_known(value, kind), kind, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
    except TypeCheckError as error:
        raise InputError(f"{label} is not what fastvae writes ({error}): use another one") from error


def _known(value: object, kind: object) -> object:
    if not (is_typeddict(kind) and isinstance(value, dict)):
        return value
    kinds = get_type_hints(kind)
    return {name: _known(held, kinds[name]) for name, held in value.items() if name in kinds}
