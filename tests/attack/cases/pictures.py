"""Hostile images and lists of images."""

import io
import os
import struct
import zlib
from functools import partial

from case import Case
from inputs import ESCAPES, PICTURES, folder_of_pictures, png, train
from PIL import Image
from place import Place
from watch import Outcome

_NAME = os.fsencode(f"00{ESCAPES}\n".replace("/", "")) + b"\xff.png"


def _bomb(side: int, kind: bytes = b"IDAT") -> bytes:
    """Return a PNG that announces an image of any size, in one colour."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    packer = zlib.compressobj(9)
    row = bytes(1 + side // 8)
    lines = packer.compress(row * (side if side < 1 << 16 else 16)) + packer.flush()
    head = struct.pack(">2I5B", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(kind, lines) + chunk(b"IEND", b"")


def _text_bomb() -> bytes:
    """Return a PNG with a compressed text of 100 MB."""
    whole = png()
    content = b"a\0\0" + zlib.compress(bytes(100 << 20), 9)
    chunk = struct.pack(">I", len(content)) + b"zTXt" + content + struct.pack(">I", zlib.crc32(b"zTXt" + content))
    return whole[:33] + chunk + whole[33:]


def _one(content: bytes, suffix: str, place: Place) -> list[str]:
    """Replace one image in a folder of valid ones."""
    folder = folder_of_pictures(place.work / "d")
    (folder / "01.png").unlink()
    (folder / f"01{suffix}").write_bytes(content)
    return train("d", *PICTURES)


def _named(flags: tuple[str, ...], place: Place) -> list[str]:
    """Add an invalid image whose name holds escape sequences."""
    folder = folder_of_pictures(place.work / "d")
    with open(os.fsencode(folder) + b"/" + _NAME, "wb") as file:
        file.write(b"no picture")
    return train("d", *PICTURES, *flags)


def _list(lines: bytes, place: Place) -> list[str]:
    folder_of_pictures(place.work / "d")
    (place.work / "x.txt").write_bytes(lines)
    return train("x.txt", *PICTURES)


def _tells(_: Place, outcome: Outcome) -> str | None:
    return None if "skipped" in outcome.stderr else "the image was skipped silently"


def _postscript() -> bytes:
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(RAN) (w) file closefile\nshowpage\n"


def _gif() -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "GIF")
    return file.getvalue()


_PICTURES = (
    ("P01", "empty", b"", ".png"),
    ("P02", "EPS", _postscript(), ".png"),
    ("P03", "SVG", b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>", ".png"),
    ("P04", "a PNG of 60,000 x 60,000", _bomb(60_000), ".png"),
    ("P05", "a PNG that announces 2**31 - 1 pixels a side", _bomb((1 << 31) - 1), ".png"),
    ("P06", "a JPEG cut off", png(kind="JPEG", size=64)[:-200], ".jpg"),
    ("P07", "a WebP cut off", png(kind="WEBP", size=64)[:-30], ".webp"),
    ("P08", "a GIF", _gif(), ".png"),
)
_LISTS = (
    ("L01", "files that are not there, with escape sequences", f"{ESCAPES}\n{ESCAPES}x.png\n".encode()),
    ("L02", "a NUL", b"d/00.png\nd/\0.png\n"),
    ("L03", "a line of 10 MB", b"d/00.png\n" + b"a" * 10_000_000 + b"\n"),
    ("L04", "passwd", b"/etc/passwd\n/etc/passwd\n"),
    ("L05", "a device", b"d/00.png\n/dev/zero\n"),
)
CASES = [
    *(Case(id=name, what=what, build=partial(_one, content, suffix)) for name, what, content, suffix in _PICTURES),
    Case(id="P09", what="bad picture with escape sequences in its name", build=partial(_named, ()), quick=True),
    Case(
        id="P10",
        what="bad picture with escape sequences in its name, skipped",
        build=partial(_named, ("--on-bad-image", "skip")),
        expect="right",
        check=_tells,
        quick=True,
    ),
    Case(
        id="P11",
        what="a PNG with a compressed text of 100 MB",
        build=lambda place: _one(_text_bomb(), ".png", place),
        expect="either",
    ),
    *(
        Case(id=name, what=f"list: {what}", build=partial(_list, lines), quick=name == "L01")
        for name, what, lines in _LISTS
    ),
]
