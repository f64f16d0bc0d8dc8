"""Hostile tar archives of images."""

import io
import tarfile
from collections.abc import Callable
from functools import partial

from case import Case
from inputs import COUNT, ESCAPES, PICTURES, png, train
from place import Place

_BLOCK = 512
END = bytes(2 * _BLOCK)


def block(name: str, size: bytes, kind: bytes = b"0", prefix: bytes = b"") -> bytes:
    """Return a member's header with any 12 bytes as its size."""
    made = bytearray(tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT))
    made[124:136] = size.ljust(12, b"\0")
    made[156:157] = kind
    made[345 : 345 + len(prefix)] = prefix
    made[148:156] = b" " * 8
    made[148:156] = b"%06o\0 " % sum(made)
    return bytes(made)


def padded(content: bytes) -> bytes:
    """Pad content to whole blocks."""
    return content + bytes(-len(content) % _BLOCK)


def octal(size: int) -> bytes:
    return b"%011o" % size


def base256(size: int) -> bytes:
    """Encode a size in 12 bytes, of any sign; negative ones begin with 0xff."""
    sign = 0x80 if size >= 0 else 0xFF
    return bytes([sign]) + (size % (1 << 88)).to_bytes(11, "big")


def pax(**records: str) -> bytes:
    """Return a pax header with records for the next member."""
    text = b""
    for key, value in records.items():
        line = f" {key.replace('__', '.')}={value}\n".encode()
        length = len(line) + len(str(len(line) + 2))
        text += str(length).encode() + line
    return block("pax", octal(len(text)), b"x") + padded(text)


def good(count: int = COUNT, name: Callable[[int], str] = "{:02}.png".format) -> bytes:
    """Return an archive of images, without its end marker."""
    parts = ((name(number), png(number)) for number in range(count))
    return b"".join(block(label, octal(len(content))) + padded(content) for label, content in parts)


def _write(content: bytes | Callable[[], bytes], place: Place) -> list[str]:
    (place.work / "x.tar").write_bytes(content if isinstance(content, bytes) else content())
    return train("x.tar", *PICTURES)


def _sparse(place: Place) -> list[str]:
    """Write a member of 8 GB, which is a hole in the file."""
    size = 8 << 30
    with (place.work / "x.tar").open("wb") as file:
        file.write(block("big.png", base256(size)))
        file.seek(size, io.SEEK_CUR)
        file.write(good() + END)
    return train("x.tar", *PICTURES)


def _out(kind: bytes, place: Place) -> list[str]:
    """Write members that are links out of the archive."""
    made = bytearray()
    for number in range(COUNT):
        head = bytearray(block(f"{number}.png", octal(0), kind))
        head[157:257] = str(place.victim).encode()[:100].ljust(100, b"\0")
        head[148:156] = b" " * 8
        head[148:156] = b"%06o\0 " % sum(head)
        made += head
    (place.work / "x.tar").write_bytes(bytes(made) + END)
    return train("x.tar", *PICTURES)


_PNG = png()
_TARS: tuple[tuple[str, str, bytes | Callable[[], bytes], str], ...] = (
    ("T00", "a whole archive", lambda: good() + END, "right"),
    ("T01", "no end", good, "refused"),
    ("T02", "cut in a picture", lambda: good()[:-700], "refused"),
    ("T03", "garbage", b"\xff" * 5000, "refused"),
    ("T04", "a wrong checksum", lambda: b"x" + good() + END, "refused"),
    ("T05", "member of size -512 (base-256)", lambda: good() + block("a.png", base256(-512)) + END, "refused"),
    ("T06", "member of size -1024", lambda: good() + block("a.png", base256(-1024)) + END, "refused"),
    ("T07", "pax size=-512", lambda: good() + pax(size="-512") + block("a.png", octal(0)) + END, "refused"),
    ("T08", "member of size 2**62", lambda: good() + block("a.png", base256(2**62)) + END, "refused"),
    ("T09", "member of size 2**70", lambda: good() + block("a.png", base256(2**70)) + END, "refused"),
    ("T10", "pax size=x", lambda: good() + pax(size="x") + block("a.png", octal(0)) + END, "either"),
    ("T11", "pax size=10**30", lambda: good() + pax(size=str(10**30)) + block("a.png", octal(0)) + END, "refused"),
    ("T12", "a size of letters", lambda: good() + block("a.png", b"zzz") + END, "refused"),
    ("T13", "escape sequences in the name of a bad picture",
     lambda: good(1) + block(f"{ESCAPES}.png", octal(9)) + padded(b"x" * 9) + good() + END, "refused"),
    ("T14", "pax path with line breaks and dots",
     lambda: pax(path="../../a\nb\x1b[31m.png") + block("a.png", octal(9)) + padded(b"x" * 9) + good() + END,
     "refused"),
    ("T15", "pax GNU.sparse 1.0 with garbage",
     lambda: good() + pax(GNU__sparse__major="1", GNU__sparse__minor="0", GNU__sparse__name="a.png",
                          GNU__sparse__realsize="99") + block("a.png", octal(len(_PNG))) + padded(_PNG) + END,
     "either"),
    ("T16", "a name of 10 MB", lambda: pax(path="a" * 10_000_000 + ".png") + block("a.png", octal(0)) + good() + END,
     "either"),
    ("T18", "a pax header that announces 8 GB", lambda: block("pax", base256(8 << 30), b"x") + END, "refused"),
    ("T19", "2,000 pax headers in a row", lambda: pax(comment="x") * 2000 + good() + END, "either"),
    ("T20", "2,000 long names in a row",
     lambda: (block("././@LongLink", octal(6), b"L") + padded(b"a.png\0")) * 2000 + good() + END, "either"),
)  # fmt: skip
CASES = [
    *(
        Case(id=name, what=f"tar: {what}", build=partial(_write, content), expect=expect, quick=name in {"T05", "T09"})
        for name, what, content, expect in _TARS
    ),
    Case(id="T17", what="tar: a picture of 8 GB", build=_sparse, expect="either"),
    Case(id="T21", what="tar: links out of it", build=partial(_out, b"2")),
    Case(id="T22", what="tar: hard links out of it", build=partial(_out, b"1")),
]
