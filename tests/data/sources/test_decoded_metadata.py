"""Broken labels of whole pictures: EXIF, text, profiles. Their pixels are read."""

import struct
import zlib

import numpy as np
import pytest
import torch
from pictures import Made, encoded
from PIL import Image

from fastvae.data.sources.decoded import DecodedSource, without_metadata

pytestmark = pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # by Pillow

COLOURS = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)


def picture():
    return Image.fromarray(COLOURS)


def read(content):
    return DecodedSource(Made([content]), 12).read([0])[0].permute(1, 2, 0)


def png(name, data, *, wrong_sum=False):
    """A PNG with one more chunk after its header."""
    content = encoded(picture())
    checksum = zlib.crc32(name + data) ^ wrong_sum
    return content[:33] + struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum) + content[33:]


def jpeg(marker, data):
    """A JPEG with one more segment at its beginning."""
    content = encoded(picture(), "JPEG", quality=95)
    return content[:2] + b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data + content[2:]


def tiff(orientation, *, kind=3, entries=1):
    """A TIFF header and a table with an orientation."""
    value = orientation if isinstance(orientation, bytes) else struct.pack("<HH", orientation, 0)
    return b"II*\0\x08\0\0\0" + struct.pack("<HHHI", entries, 0x0112, kind, 1) + value + bytes(4)


@pytest.mark.parametrize(
    ("exif", "is_turned"),
    [
        (b"garbage, not TIFF", False),
        (b"", False),
        (b"II*\0\x08\0\0\0", False),
        (b"II*\0\xf0\xff\xff\x7f", False),
        (tiff(6), True),
        (tiff(6, entries=9), True),  # the table is cut off
        (tiff(0), False),
        (tiff(9), False),
        (tiff(b"6\0\0\0", kind=2), False),  # a letter
    ],
)
def test_a_broken_exif_block_refuses_no_pixels(exif, is_turned):
    expected = np.rot90(COLOURS, -1)[2:14] if is_turned else COLOURS[:, 2:14]
    for form in ("PNG", "WEBP"):
        content = encoded(picture(), form, exif=b"Exif\0\0" + exif, **({"lossless": True} if form == "WEBP" else {}))
        assert torch.equal(read(content), torch.from_numpy(expected.copy())), form
    assert read(encoded(picture(), "JPEG", exif=b"Exif\0\0" + exif)).shape == (12, 12, 3)


@pytest.mark.parametrize(
    "content",
    [
        png(b"pHYs", b"\0"),
        png(b"gAMA", b""),
        png(b"iCCP", b""),
        png(b"zTXt", b"k\0\x07garbage"),
        png(b"tRNS", b"\0"),
        png(b"tEXt", b"a\0b", wrong_sum=True),
        png(b"eXIf", tiff(1), wrong_sum=True),
        png(b"tEXt", b"Raw profile type exif\0\nexif\n  8\nzzzz"),
    ],
)
def test_broken_chunks_refuse_no_pixels(content):
    assert torch.equal(read(content), torch.from_numpy(COLOURS[:, 2:14].copy()))


@pytest.mark.parametrize("content", [jpeg(0xE0, b"JFIF"), jpeg(0xEE, b"Adobe"), jpeg(0xFE, b"\xff")])
def test_broken_segments_refuse_no_pixels(content):
    assert torch.equal(read(content), read(encoded(picture(), "JPEG", quality=95)))


def test_what_decides_pixels_or_cannot_be_parsed_stays():
    palette = encoded(picture().convert("P"))
    assert b"PLTE" in without_metadata(palette)
    kept = without_metadata(encoded(picture().convert("CMYK"), "JPEG", exif=b"Exif\0\0" + tiff(6), comment=b"words"))
    assert b"Adobe" in kept
    assert b"Exif" in kept
    assert b"words" not in kept
    for content in (b"", b"RIFF", b"\xff\xd8\xff\xe0\0\0", b"\xff\xd8\xff"):
        assert without_metadata(content) == content
