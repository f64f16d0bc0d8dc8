"""Pictures of any size as images of one size: decoded, cut to the middle square, resized."""

import io
import logging
import math
import threading
import warnings
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastvae.utils.errors import InputError, finding
from fastvae.utils.files import reason
from fastvae.utils.machine import check_fits

from .resize import middle_square
from .source import EncodedPictures
from .unpacking_limits import check_unpacked

OnBadImage = Literal["stop", "skip"]
_FORMATS = ("JPEG", "PNG", "WEBP")
_BYTES = {"1": 1, "L": 1, "P": 1, "LA": 2, "I;16": 2, "RGB": 3}  # of a pixel, by Pillow's mode
_PNG = b"\x89PNG\r\n\x1a\n"
_ORIENTATION = 0x0112  # EXIF's tag
_TURNS = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE",
    8: "ROTATE_90",
}  # fmt: skip
_LOG = logging.getLogger("fastvae")


class DecodedSource:
    """A :class:`Source` of pictures, decoded each time that they are read: uint8 in channels_last.

    A picture is turned as its EXIF tag says, read as RGB or grey, then cut and resized by
    :func:`.resize.middle_square`.

    Args:
        encoded: the pictures as their files have them.
        size: the side in pixels that they are resized to.
        channels: 3 (RGB) or 1 (grey).
        on_bad: what to do with a picture that cannot be decoded. "stop" raises InputError; "skip" logs its name once
            and reads the next one in its place, so the batch keeps its size, and every process reads the same.

    Raises:
        InputError: a size or a number of channels out of its range.
    """

    def __init__(self, encoded: EncodedPictures, size: int, channels: int = 3, on_bad: OnBadImage = "stop") -> None:
        if size < 1:
            raise InputError(f"the size of pictures must be at least 1 pixel, not {size}")
        if channels not in (1, 3):
            raise InputError(f"pictures have 3 channels (RGB) or 1 (grey), not {channels}")
        check_fits(size**2 * channels, f"one picture of {size} x {size} pixels", "give a smaller --image-size")
        self.encoded = encoded
        self.size = size
        self.channels = channels
        self.on_bad = on_bad
        self.shape = (len(encoded), channels, size, size)
        self.dtype = torch.uint8
        self.bad: dict[int, int] = {}  # the bad pictures known so far, and the thread that found each

    def __len__(self) -> int:
        return len(self.encoded)

    def read(self, indices: Sequence[int]) -> Tensor:
        images = self.empty(len(indices))
        for row, index in enumerate(indices):
            images[row] = self._read(int(index))
        return images

    def empty(self, count: int) -> Tensor:
        """Allocate ``count`` images: (count, C, size, size) uint8 in channels_last."""
        return torch.empty((count, self.size, self.size, self.channels), dtype=torch.uint8).permute(0, 3, 1, 2)

    def stand_in(self, index: int) -> int:
        """Return the picture that is read for ``index``: the first from there on that is not known to be bad."""
        while index in self.bad and len(self.bad) < len(self):
            index = (index + 1) % len(self)
        return index

    def _read(self, index: int) -> Tensor:
        """Decode one picture, or the first whole one after it."""
        while len(self.bad) < len(self):
            index = self.stand_in(index)
            try:
                return self.decode(index)
            except InputError as error:
                if self.on_bad == "stop":
                    raise
                thread = threading.get_ident()
                if self.bad.setdefault(index, thread) == thread:  # one of several threads tells
                    _LOG.warning("skipped, with the next whole picture in its place: %s", finding(error))
        raise InputError(f"none of {len(self)} pictures can be decoded, {self.encoded.name(index)} for one")

    def decode(self, index: int) -> Tensor:
        """Decode one picture to (C, size, size) uint8. Raises InputError with its name if it cannot be decoded."""
        try:
            content = self.encoded.encoded(index)
            try:
                pixels = self._decode(content)
            except InputError:
                raise
            except Exception:  # each of Pillow's decoders has errors of its own
                bare = without_metadata(content)
                if bare == content:
                    raise
                pixels = self._decode(bare)
        except Exception as error:
            raise InputError(
                f"{self.encoded.name(index)}: cannot be decoded ({_words(error)}): "
                "repair or remove it, or use --on-bad-image skip"
            ) from error
        picture = torch.from_numpy(pixels).view(1, *pixels.shape[:2], self.channels).permute(0, 3, 1, 2)
        return middle_square(picture, self.size)[0]

    def _decode(self, content: bytes) -> NDArray[np.uint8]:
        """Return the pixels of a file: (H, W, 3) or (H, W)."""
        with _pillow().open(io.BytesIO(content), formats=_FORMATS) as opened:
            check_unpacked("it", len(content), math.prod(opened.size) * _BYTES.get(opened.mode, 4))
            return picture_pixels(upright(opened), "RGB" if self.channels == 3 else "L")


@cache
def _pillow() -> Any:
    """Return Pillow's module for images. Its warning of a bomb is off: :func:`check_unpacked` refuses one."""
    image = import_module("PIL.Image")
    warnings.filterwarnings("ignore", category=image.DecompressionBombWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # about damaged metadata, say
    return image


def upright(picture: Any) -> Any:
    """Return a Pillow image turned as its EXIF orientation says; as it is where its metadata cannot be read."""
    picture.load()  # raises for broken pixels, which are refused
    try:
        orientation = picture.getexif().get(_ORIENTATION)
        turn = _TURNS.get(orientation)
    except Exception:  # of a broken header, table or XMP packet: each ends in an error of its own
        return picture
    return picture if turn is None else picture.transpose(_pillow().Transpose[turn])


def without_metadata(content: bytes) -> bytes:
    """Return a PNG without its ancillary chunks, or a JPEG without comments and most application segments.

    They are labels, none of which decides a pixel here: with a broken one, Pillow refuses pixels that are whole. Other
    files, and those whose segments have no valid lengths, come back as they are.
    """
    if content.startswith(_PNG):
        return _png_without_metadata(content)
    if content.startswith(b"\xff\xd8"):
        return _jpeg_without_metadata(content)
    return content


def _png_without_metadata(content: bytes) -> bytes:
    kept = [_PNG]
    place = len(_PNG)
    while place < len(content):
        end = place + 12 + int.from_bytes(content[place : place + 4], "big")  # length, name, data, checksum
        if content[place + 4 : place + 5].isupper():  # a critical chunk
            kept.append(content[place:end])
        place = end
    return b"".join(kept)


def _jpeg_without_metadata(content: bytes) -> bytes:
    kept = [content[:2]]
    place = 2
    while content[place : place + 1] == b"\xff" and content[place + 1 : place + 2] not in (b"\xda", b""):  # the scan
        size = int.from_bytes(content[place + 2 : place + 4], "big")
        if size < 2:
            return content
        segment = content[place : place + 2 + size]
        is_label = segment[1] == 0xFE or 0xE0 <= segment[1] <= 0xEF
        # Adobe's names the colour space; the orientation is in Exif's, which may be broken.
        is_needed = (segment[4:9] == b"Adobe" and size >= 14) or segment[4:8] == b"Exif"
        if not is_label or is_needed:
            kept.append(segment)
        place += 2 + size
    return b"".join([*kept, content[place:]])


def begins_as_picture(content: bytes) -> bool:
    """Return whether bytes begin as a JPEG, PNG or WebP does: no other format is read, whatever a decoder knows."""
    return content.startswith((b"\xff\xd8\xff", _PNG)) or (content[:4] == b"RIFF" and content[8:12] == b"WEBP")


def picture_pixels(picture: Any, mode: str) -> NDArray[np.uint8]:
    """Return a Pillow image as (H, W, 3) or (H, W) of 8 bits; 16 bits lose their lower half."""
    if picture.mode.startswith("I"):
        picture = _pillow().fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    picture.info.pop("transparency", None)  # what is transparent keeps its colour; Pillow would warn
    return np.array(picture if picture.mode == mode else picture.convert(mode))


def _words(error: Exception) -> str:
    """Say what is wrong with a picture; Pillow's own words for an unknown format name an object in memory."""
    return "it is not a JPEG, PNG or WebP" if type(error).__name__ == "UnidentifiedImageError" else reason(error)
