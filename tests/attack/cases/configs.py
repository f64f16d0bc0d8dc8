"""Hostile run folders: config.json."""

from collections.abc import Mapping
from functools import partial

from case import Case
from inputs import ESCAPES, config_of
from place import Place

EVALUATE, NLL, SAMPLE = (
    ("fastvae", "evaluate", "run"),
    ("fastvae", "nll", "run", "--samples", "2"),
    ("fastvae", "sample", "run", "--count", "4"),
)
DEEP = b"[" * 200_000

# (id, description, changes, command)
_CHANGES: tuple[tuple[str, str, Mapping[str, object] | bytes, tuple[str, ...]], ...] = (
    ("C12", "data.shape: 5", {"data.shape": 5}, EVALUATE),
    ("C13", "data.shape of words", {"data.shape": ["a", "b", "c"]}, EVALUATE),
    ("C14", "data.shape of 10**9 pixels", {"data.shape": [1, 10**5, 10**4]}, EVALUATE),
    ("C18", "data: 7", {"settings.data": 7}, EVALUATE),
    ("C20", "data_dir: 5, data mnist", {"settings.data": "mnist", "settings.data_dir": 5}, EVALUATE),
    ("C23", 'seed: "a"', {"settings.seed": "a"}, EVALUATE),
    ("C24", "seed: -1", {"settings.seed": -1}, EVALUATE),
    ("C25", "seed: 10**30", {"settings.seed": 10**30}, EVALUATE),
    ("C26", "seed: null", {"settings.seed": None}, EVALUATE),
    ("C27", "binarize: true, seed: 1.5", {"settings.binarize": True, "settings.seed": 1.5}, EVALUATE),
    ("C29", "image_size: -1", {"settings.image_size": -1}, EVALUATE),
    ("C30", "image_size: 10**6", {"settings.image_size": 10**6}, EVALUATE),
    ("C31", 'image_size: "8"', {"settings.image_size": "8"}, EVALUATE),
    ("C32", "width: a list", {"settings.preset": "conv28", "settings.width": []}, EVALUATE),
    ("C33", "latent_dim: 10**9", {"settings.latent_dim": 10**9}, EVALUATE),
    ("C34", "200,000 brackets", DEEP, EVALUATE),
    ("C35", "200,000 brackets, resumed", DEEP, ("fastvae", "train", "--device", "cpu", "--out", "run", "--resume")),
    ("C39", "escape sequences in data", {"settings.data": f"/no/{ESCAPES}\nfastvae: all is well.npy"}, EVALUATE),
    ("C40", "escape sequences in preset", {"settings.preset": ESCAPES}, EVALUATE),
    ("C41", "nll with seed null", {"settings.seed": None}, NLL),
    ("C42", "not UTF-8", b"\xff\xfe\x00", EVALUATE),
    ("C43", "settings: a list", {"settings": []}, SAMPLE),
    ("C44", "crop: 5", {"settings.crop": 5}, EVALUATE),
    ("C45", "channels: 7", {"settings.channels": 7}, EVALUATE),
    ("C46", "NaN for a seed", {"settings.seed": float("nan")}, EVALUATE),
)


def _build(changes: Mapping[str, object] | bytes, command: tuple[str, ...], place: Place) -> tuple[str, ...]:
    config_of(place, changes)
    return command


def _whole(command: tuple[str, ...], place: Place) -> tuple[str, ...]:
    place.copy_run()
    return command


# Fields without effect on this run may be refused or ignored.
_HARMLESS = {"C44", "C45"}
_QUICK = {"C12", "C24", "C34", "C39"}
CASES = [
    Case(id="C00", what="a whole run, evaluated", build=partial(_whole, EVALUATE), expect="right", quick=True),
    Case(id="C01", what="a whole run, nll", build=partial(_whole, NLL), expect="right"),
    *(
        Case(
            id=name,
            what=what,
            build=partial(_build, changes, command),
            expect="either" if name in _HARMLESS else "refused",
            quick=name in _QUICK,
        )
        for name, what, changes, command in _CHANGES
    ),
]
