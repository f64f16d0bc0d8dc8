"""Arrays of images, as numpy has them: their layouts, and .npy files."""

import warnings
from io import BytesIO
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastvae.data.sources.tensor import without_rounding
from fastvae.data.sources.unpacking_limits import as_input_error
from fastvae.utils.errors import InputError
from fastvae.utils.files import open_regular, reason

_MAGIC = b"\x93NUMPY"
_CHANNELS = (1, 3, 4)
_PART = 1 << 20  # bytes that are read together
_HEADER_LIMIT = 1 << 14  # bytes; numpy refuses headers of more than 10,000 by itself, but only once it has read them


class Header(NamedTuple):
    """The header of an .npy file; ``start`` is its length in bytes."""

    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype[Any]
    start: int


def header(file: IO[bytes]) -> Header:
    """Read the header of an .npy file that begins at the file's position. Damage raises whatever numpy raises."""
    head = BytesIO(file.read(_HEADER_LIMIT))
    version = np.lib.format.read_magic(head)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    with warnings.catch_warnings():  # about headers by Python 2, or with letters that Python has not
        warnings.simplefilter("ignore")
        return Header(*read(head), head.tell())


def open_npy(path: Path) -> NDArray[Any]:
    """Open the array of an .npy file as a :class:`numpy.memmap`: nothing is read yet, and nothing is ever written.

    Raises:
        InputError: the file is missing, not an .npy file, or truncated.
    """
    remedy = "save one array of images, all of one size, with numpy.save"
    try:
        with open_regular(path) as file:
            magic = file.read(len(_MAGIC))
            if magic.startswith(b"PK"):
                raise InputError(
                    f"{path}: is an archive, not an .npy file: rename it to .npz if numpy.savez wrote it, else {remedy}"
                )
            if magic != _MAGIC:
                raise InputError(f"{path}: is not an .npy file, it begins with 0x{magic.hex()}: {remedy}")
            # A damaged header ends in ValueError, SyntaxError, TypeError, OverflowError, ...
            with as_input_error(lambda why: f"{path}: is not a usable .npy file ({why}): {remedy}"):
                file.seek(0)
                shape, is_fortran, dtype, start = header(file)
                if dtype.hasobject:
                    raise ValueError("it holds Python objects, which only pickle could read")
                # Mapped, so a header that announces more than the file holds is refused before anything is allocated.
                array = np.memmap(path, dtype, "r", start, shape, "F" if is_fortran else "C")
                _check_end(file, start + array.nbytes)
    except OSError as error:
        raise InputError(f"{path}: can't be read ({reason(error)}): give the path of an .npy file") from error
    return array


def _check_end(file: BinaryIO, end: int) -> None:
    """Raise ValueError where more than a padding of zeros follows the array: a second one would be left out."""
    file.seek(end)
    while part := file.read(_PART):
        if part.startswith(_MAGIC):
            raise ValueError("more arrays follow the first, each by a numpy.save of its own: join them")
        if part.strip(b"\0"):
            raise ValueError(f"more bytes follow its array, which ends at byte {end:,}")


def check_images(label: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Refuse an array that cannot hold images.

    Arrays of (N, H, W), (N, C, H, W) or (N, H, W, C) are images, with C in 1, 3, 4 and the first reading that fits;
    (N, D) are plain vectors. They hold uint8, bool or floats.

    Raises:
        InputError: an array of another type or shape, or an empty one.
    """
    if dtype.kind not in "fb" and dtype != np.uint8:
        raise InputError(
            f"{label}: has elements of {dtype}, not uint8, bool or floats: convert it with "
            ".astype('uint8') if its values are 0..255, else scale it to [0, 1] and use .astype('float32')"
        )
    if len(shape) >= 2 and 0 in shape:
        raise InputError(f"{label}: has shape {shape}, which holds no pixels: give at least 2 images")
    if len(shape) not in (2, 3) and not (len(shape) == 4 and (shape[1] in _CHANNELS or shape[3] in _CHANNELS)):
        raise InputError(
            f"{label}: has shape {shape}: reshape it to (N, H, W), (N, C, H, W) or (N, H, W, C) with C in 1, 3, 4, "
            "or (N, D)"
        )


def as_images(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array that passed :func:`check_images` as (N, C, H, W), a view; (N, D) becomes (N, 1, 1, D).

    >>> import numpy as np
    >>> as_images(np.zeros((5, 9, 8, 3))).shape
    (5, 3, 9, 8)
    """
    if array.ndim == 2:
        return array[:, None, None, :]
    if array.ndim == 3:
        return array[:, None]
    return array if array.shape[1] in _CHANNELS else array.transpose(0, 3, 1, 2)


def as_pixels(label: str, array: NDArray[Any]) -> Tensor:
    """Return an array as a uint8 or fp32 tensor, without a copy where it has that type.

    bool becomes 0 and 255, and any floating-point type becomes fp32, by :func:`.without_rounding`.

    Raises:
        InputError: it has pixels that are NaN or infinite as fp32.
    """
    if array.dtype.kind == "b":
        return torch.from_numpy(array.view(np.uint8)) * 255
    if array.dtype == np.uint8:
        return torch.from_numpy(array)
    with np.errstate(over="ignore"):  # a value too large for fp32 becomes infinite, and is refused below
        pixels = torch.from_numpy(array.astype(np.float32, copy=False))
    low, high = (bound.item() for bound in torch.aminmax(pixels)) if pixels.numel() else (0.0, 0.0)
    if not np.isfinite([low, high]).all():
        raise InputError(
            f"{label}: has pixels that are NaN or infinite as float32 (they span [{low:g}, {high:g}]): "
            "clean them, with numpy.nan_to_num for one"
        )
    return without_rounding(pixels)
