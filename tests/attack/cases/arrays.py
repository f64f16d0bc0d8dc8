"""Hostile arrays: .npy, and IDX, the format of MNIST."""

import gzip
import io
import os
import pickle
import struct
import zlib
from functools import partial
from pathlib import Path

import numpy as np
from case import Case
from inputs import COUNT, images, train
from place import Place

_STEMS = ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte")
_HUGE = 1 << 34


class Runs:
    """An object whose unpickling makes a folder, which shows that code ran."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def header(text: str, content: bytes = b"") -> bytes:
    """Return an .npy file with any header."""
    padded = text + " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded.encode("latin1") + content


def described(shape: object, descr: object = "|u1", content: bytes = b"") -> bytes:
    """Return an .npy file whose header announces any shape and dtype."""
    return header(f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}", content)


def _npy(content: bytes, place: Place) -> list[str]:
    (place.work / "x.npy").write_bytes(content)
    return train("x.npy")


def _whole(place: Place) -> list[str]:
    np.save(place.work / "x.npy", images())
    return train("x.npy")


def _objects(name: str, place: Place) -> list[str]:
    """Write an array of objects, which only pickle could read, under any file name."""
    array = np.array([Runs(place.ran)] * COUNT, dtype=object)
    content = io.BytesIO()
    np.save(content, array, allow_pickle=True)
    (place.work / name).write_bytes(content.getvalue())
    return train(name, "--image-size", "8")


def _pickle(name: str, place: Place) -> list[str]:
    (place.work / name).write_bytes(pickle.dumps(Runs(place.ran)))
    return train(name, "--image-size", "8")


def _sparse(place: Place) -> list[str]:
    """Write a sparse file of 1 TB, of 2**34 images."""
    with (place.work / "x.npy").open("wb") as file:
        file.write(described(f"({_HUGE}, 8, 8)"))
        file.truncate(file.tell() + _HUGE * 64)
    return train("x.npy")


def _wide(place: Place) -> list[str]:
    """Write a few images, so large that the weights of a network for them would take 430 GB."""
    with (place.work / "x.npy").open("wb") as file:
        file.write(described("(4, 16384, 16384)"))
        file.truncate(file.tell() + (4 << 28))
    return train("x.npy")


_HEADERS: tuple[tuple[str, str, bytes], ...] = (
    ("N01", "empty", b""),
    ("N02", "a header of 64 KB of brackets", header("(" * 60_000)),
    ("N03", "a header with a call", header("{'descr': '|u1', 'fortran_order': False, 'shape': (open('RAN', 'w'),)}")),
    ("N04", "a shape of 10**30", described("(10**30, 8, 8)".replace("10**30", "1" + "0" * 30))),
    ("N05", "a negative shape", described("(-40, 8, 8)")),
    ("N06", "fewer bytes than announced", described("(40, 8, 8)", content=bytes(100))),
    ("N07", "2**62 images without pixels", described(f"({1 << 62}, 0, 8)")),
    ("N08", "elements of strings", described("(40, 8, 8)", "<U1", bytes(40 * 64 * 4))),
    ("N09", "elements of a structure", described("(40, 8, 8)", [("a\x1b[31m", "|u1")], bytes(40 * 64))),
    ("N10", "floats that are NaN", described("(40, 8, 8)", "<f4", b"\xff" * 40 * 256)),
    ("N11", "version 9", b"\x93NUMPY\x09\x00" + bytes(100)),
    ("N12", "a header of 4 GB", b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(100)),
)


def _idx(place: Place, content: bytes, suffix: str = "") -> list[str]:
    for stem in _STEMS:
        (place.work / f"{stem}{suffix}").write_bytes(content)
    return train("mnist", "--data-dir", ".")


def idx(count: int, height: int, width: int, content: bytes) -> bytes:
    """Return an IDX file."""
    return struct.pack(">4B3I", 0, 0, 8, 3, count, height, width) + content


def _bomb(place: Place) -> list[str]:
    """Write a gzip file of some MB that unpacks to 4 GB of zeros, as many as its header announces."""
    side, count = 1 << 12, 1 << 8
    head = idx(count, side, side, b"")
    part = bytes(1 << 24)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(part) + packer.flush(zlib.Z_FULL_FLUSH)
    blocks = count * side * side >> 24
    crc = zlib.crc32(head)
    for _ in range(blocks):
        crc = zlib.crc32(part, crc)
    size = len(head) + count * side * side
    end = packer.flush() + struct.pack("<II", crc, size & 0xFFFFFFFF)
    return _idx(place, b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff" + first + block * blocks + end, ".gz")


_IDX = (
    ("X01", "an IDX file that announces 2**96 bytes", idx(2**32 - 1, 2**32 - 1, 2**32 - 1, bytes(100)), ""),
    ("X02", "an IDX file without pixels", idx(0, 8, 8, b""), ""),
    ("X06", "IDX.gz cut off", gzip.compress(idx(40, 8, 8, bytes(2560)))[:-9], ".gz"),
    ("X07", "IDX.gz that announces more", gzip.compress(idx(2**20, 64, 64, bytes(99))), ".gz"),
    ("X08", "IDX.gz of garbage", b"\x1f\x8b\x08\x1f" + b"\xff" * 99, ".gz"),
)
_PICKLED = ("x.npy", "x.npz", "x.tar", "x.h5", "x.txt")

CASES = [
    Case(id="N00", what="a whole .npy", build=_whole, expect="right", quick=True),
    *(
        Case(id=name, what=f"npy: {what}", build=partial(_npy, content), quick=name == "N06")
        for name, what, content in _HEADERS
    ),
    Case(id="N13", what="npy: sparse file of 1 TB, 2**34 images", build=_sparse, quick=True),
    Case(id="N24", what="npy: images of 16,384 x 16,384", build=_wide),
    Case(id="N15", what="npy: an array of objects", build=partial(_objects, "x.npy"), quick=True),
    *(
        Case(id=f"N16.{n}", what=f"a pickle named {name}", build=partial(_pickle, name))
        for n, name in enumerate(_PICKLED)
        if name != "x.h5"
    ),
    *(
        Case(id=name, what=what, build=partial(_idx, content=content, suffix=suffix), quick=name == "X06")
        for name, what, content, suffix in _IDX
    ),
    Case(id="X03", what="IDX.gz: 4 GB of zeros", build=_bomb, expect="either", seconds=40),
]
