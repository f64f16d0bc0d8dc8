"""Hostile archives of arrays: .npz, and torchvision's data sets in bz2."""

import bz2
import struct
import zipfile
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from case import Case
from inputs import COUNT, ESCAPES, images, train
from place import Place

from .arrays import described


def _npz(members: Sequence[tuple[str, bytes]], place: Place) -> list[str]:
    with zipfile.ZipFile(place.work / "x.npz", "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return train("x.npz")


def _flip(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1]))


def _small(save, place: Place) -> list[str]:
    """Flip one bit of the pixels, whose CRC the archive holds."""
    path = place.work / "x.npz"
    save(path, images=images())
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("images.npy")
    _flip(path, info.header_offset + 30 + len(info.filename) + info.compress_size // 2)
    return train("x.npz")


def _large(place: Place) -> list[str]:
    """Flip a bit in 1.2 GB of pixels, too large to be read into memory. The file is sparse."""
    count, side = 300, 2000
    content = described(f"({count}, {side}, {side})")
    size = len(content) + count * side * side
    crc = zlib.crc32(content)
    left = size - len(content)
    part = bytes(1 << 24)
    while left:
        crc = zlib.crc32(part[:left], crc)
        left -= min(left, len(part))
    with zipfile.ZipFile(place.work / "y.npz", "w") as archive:  # the template of the central directory
        archive.writestr("images.npy", content)
    whole = bytearray((place.work / "y.npz").read_bytes())
    central = whole.index(b"PK\x01\x02")
    for at in (14, central + 16):  # CRC, compressed size, size
        whole[at : at + 12] = struct.pack("<III", crc, size, size)
    end = whole.index(b"PK\x05\x06")
    offset = central + size - len(content)
    whole[end + 16 : end + 20] = struct.pack("<I", offset)
    path = place.work / "x.npz"
    with path.open("wb") as file:
        file.write(whole[:central])
        file.seek(offset)
        file.write(whole[central:])
    _flip(path, offset // 2)
    return train("x.npz", "--image-size", "8", "--loader", "torch", "--workers", "0")


def _bomb(place: Place) -> list[str]:
    """Write some MB that unpack to an array of 4 GB of zeros, in images of 16 MB."""
    count, side = 256, 4096
    head = described(f"({count}, {side}, {side})")
    part = bytes(side * side)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(part) + packer.flush(zlib.Z_FULL_FLUSH)
    crc = zlib.crc32(head)
    for _ in range(count):
        crc = zlib.crc32(part, crc)
    packed = first + block * count + packer.flush()
    size = len(head) + count * side * side
    extra = struct.pack("<HHQQ", 1, 16, size, len(packed))
    sizes = struct.pack("<III", crc, 0xFFFFFFFF, 0xFFFFFFFF)
    local = b"PK\x03\x04" + struct.pack("<HHHHH", 45, 0, 8, 0, 33) + sizes + struct.pack("<HH", 10, len(extra))
    central = b"PK\x01\x02" + struct.pack("<HHHHHH", 45, 45, 0, 8, 0, 33) + sizes
    central += struct.pack("<HHHHHII", 10, len(extra), 0, 0, 0, 0, 0) + b"images.npy" + extra
    body = local + b"images.npy" + extra + packed
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(body), 0)
    (place.work / "x.npz").write_bytes(body + central + end)
    return train("x.npz", "--image-size", "8")


def _usps(place: Place) -> list[str]:
    """Write a few KB that unpack to a single line of 4 GB."""
    content = bz2.compress(b"0" * (1 << 24)) * 256
    for name in ("usps.bz2", "usps.t.bz2"):
        (place.work / name).write_bytes(content)
    return train("torchvision:USPS", "--data-dir", ".")


_GOOD = described(f"({COUNT}, 8, 8)", content=images().tobytes())
_OBJECTS = described(f"({COUNT},)", "|O", b"\x80\x04cposix\nsystem\n(S'touch RAN'\ntR.")
_NAMED = [(f"../../{ESCAPES}a\n", _GOOD), (f"/{ESCAPES}b", _GOOD)]
_MEMBERS = (
    ("N17", "an array of objects", [("images.npy", _OBJECTS)]),
    ("N18", "control characters in the names of members", [(f"{name}.npy", content) for name, content in _NAMED]),
    ("N19", "a member that is not an array", [("images.npy", b"x")]),
    ("N20", "no member", []),
    ("N21", "a header that announces more", [("images.npy", described("(1073741824, 8, 8)"))]),
    ("N22", "70,000 members", [(f"{number}.npy", b"") for number in range(70_000)]),
)
CASES = [
    *(
        Case(id=name, what=f"npz: {what}", build=partial(_npz, members), quick=name == "N18")
        for name, what, members in _MEMBERS
    ),
    Case(id="N14", what="npz: 4 GB of zeros", build=_bomb, expect="either", seconds=40),
    Case(id="N23", what="npz, compressed: a bit flipped", build=partial(_small, np.savez_compressed)),
    Case(id="CRC1", what="npz, 1.2 GB uncompressed: a bit flipped in the pixels", build=_large, seconds=30),
    Case(id="CRC2", what="npz, uncompressed and small: a bit flipped", build=partial(_small, np.savez), quick=True),
    Case(id="V01", what="torchvision:USPS: bz2 of 4 GB", build=_usps, expect="either", seconds=60),
]
