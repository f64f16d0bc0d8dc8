"""Hostile HDF5 files. h5py is installed in the adapters' environment only."""

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from case import Case
from inputs import COUNT, images, train
from place import Place

Fill = Callable[[Any, Any, Place], object]  # called with h5py, the open file and its place


def _file(fill: Fill, place: Place) -> list[str]:
    import h5py  # noqa: PLC0415

    with h5py.File(place.work / "x.h5", "w") as file:
        fill(h5py, file, place)
    return train("x.h5", "--image-size", "8")


def _virtual(h5py: Any, file: Any, place: Place) -> None:
    """Make a virtual data set over a file outside the folder."""
    with h5py.File(place.outside / "secret.h5", "w") as secret:
        secret["images"] = images()
    layout = h5py.VirtualLayout((COUNT, 8, 8), np.uint8)
    layout[:] = h5py.VirtualSource(str(place.outside / "secret.h5"), "images", (COUNT, 8, 8))
    file.create_virtual_dataset("images", layout)


def _external(_: Any, file: Any, place: Place) -> None:
    """Make a data set whose raw data lie in /etc/passwd."""
    file.create_dataset("images", (2, 8, 8), np.uint8, external=[("/etc/passwd", 0, 128)])


def _linked(h5py: Any, file: Any, place: Place) -> None:
    with h5py.File(place.outside / "secret.h5", "w") as secret:
        secret["images"] = images()
    file["images"] = h5py.ExternalLink(str(place.outside / "secret.h5"), "/images")


def _circle(h5py: Any, file: Any, _: Place) -> None:
    group = file.create_group("a")
    group["b"] = h5py.SoftLink("/a")
    group["c"] = file["/"]
    file["images"] = images()


def _wide(h5py: Any, file: Any, _: Place) -> None:
    for number in range(3000):
        file.create_dataset(f"{number}\x1b[31m", (2, 2), np.uint8)


def _damaged(seed: int, place: Place) -> list[str]:
    """Change some random bytes of a valid file."""
    command = _file(lambda _, file, __: file.create_dataset("images", data=images()), place)
    path = place.work / "x.h5"
    dice = random.Random(seed)
    content = bytearray(path.read_bytes())
    for _ in range(COUNT):
        content[dice.randrange(len(content))] = dice.randrange(256)
    path.write_bytes(content)
    return command


def _declared(_: Any, file: Any, __: Place) -> None:
    file.create_dataset("images", (10**11, 8, 8), np.uint8, chunks=(1000, 8, 8))


def _packed(_: Any, file: Any, __: Place) -> None:
    """Declare 4 GB without storing any, in chunks of a whole image."""
    file.create_dataset("images", (256, 4096, 4096), np.uint8, chunks=(1, 4096, 4096), compression="gzip")


_FILES: tuple[tuple[str, str, Fill, str, str], ...] = (
    ("H00", "a whole file", lambda _, file, __: file.create_dataset("images", data=images()), "right", "silent"),
    ("H01", "a link to a data set of another file", _linked, "refused", "read outside"),
    ("H02", "a virtual data set over another file", _virtual, "refused", "read outside"),
    ("H03", "raw data in /etc/passwd", _external, "refused", "read outside"),
    ("H05", "declared shape 10**11, nothing stored", _declared, "refused", "silent"),
    ("H06", "links in a circle", _circle, "either", "silent"),
    ("H07", "3,000 names with escape sequences", _wide, "refused", "silent"),
    ("H08", "no data set", lambda *_: None, "refused", "silent"),
    ("H09", "strings", lambda _, file, __: file.create_dataset("images", data=["a\x1b", "b"]), "refused", "silent"),
    ("H10", "4 GB declared", _packed, "either", "silent"),
)
CASES = [
    *(
        Case(id=name, what=f"HDF5: {what}", build=partial(_file, fill), expect=expect, wrong=wrong, needs="h5py")
        for name, what, fill, expect, wrong in _FILES
    ),
    *(
        Case(
            id=f"H11.{seed}",
            what=f"HDF5: 40 random bytes changed, seed {seed}",
            build=partial(_damaged, seed),
            expect="either",
            needs="h5py",
        )
        for seed in range(10)
    ),
]
