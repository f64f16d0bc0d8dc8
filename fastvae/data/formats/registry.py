"""The choice of a format by the name or path of the images. A new format is registered here."""

import os
import re
from collections.abc import Callable
from pathlib import Path

from fastvae.data.sources.folders import path_of
from fastvae.data.sources.source import EncodedPictures, Source
from fastvae.utils.errors import InputError

from .arrays import read_npy
from .file_names import IDX, SUFFIXES
from .folder import read_folder
from .hdf5 import read_hdf5
from .huggingface import is_saved, read_saved
from .listing import read_list
from .npz import read_npz
from .tar import numbered, read_tars
from .torchvision import PREFIX, read_torchvision

Splits = tuple[EncodedPictures, EncodedPictures] | tuple[Source, Source]

_FILES: dict[str, Callable[[Path], Splits]] = {".npy": read_npy, ".npz": read_npz, ".txt": read_list, ".lst": read_list}
_HDF5 = re.compile(r"(.+\.(?:h5|hdf5))(?::(.+))?", re.IGNORECASE)
_PACKED = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")


def open_images(name: str, data_dir: Path | None) -> Splits | None:
    """Find training and test images by their path or name; None for a name that no format takes.

    Args:
        name: an array in an .npy, .npz, .h5 or .hdf5 file ('FILE.h5:KEY' for one of several); a folder of pictures, a
            .txt or .lst file with their paths, a .tar file, a folder of those or a pattern like 'x-{000..123}.tar'; a
            folder by ``save_to_disk`` of Hugging Face's ``datasets``; 'torchvision:NAME', a class of its data sets.
        data_dir: where the files of torchvision's data sets are.

    Returns:
        Pictures of any size, as their files have them; or images (N, C, H, W), uint8 or fp32, of one size.

    Raises:
        InputError: the images are missing, damaged or empty, or the path exists but fits none of these.

    >>> open_images("mnist", None)
    """
    if name.startswith(PREFIX):
        return read_torchvision(name, data_dir)
    path = path_of(name)
    suffix = path.suffix.lower()
    if os.path.isdir(path):
        return _read_any_folder(path)
    if suffix in _FILES:
        return _FILES[suffix](path)
    if suffix == ".tar":
        return read_tars([path] if os.path.exists(path) or "{" not in name else list(numbered(str(path))), name)
    if hdf5 := _HDF5.fullmatch(str(path)):
        return read_hdf5(Path(hdf5[1]), hdf5[2])
    if os.path.exists(path) or os.sep in name:
        raise _unknown(path, suffix)
    return None


def _unknown(path: Path, suffix: str) -> InputError:
    if not os.path.exists(path):
        return InputError(f"{path}: no such file or folder: give the path of the images")
    if suffix in SUFFIXES:
        return InputError(f"{path}: is a single picture: give the folder that holds it, or a .txt list of several")
    if IDX in path.name:
        return InputError(f"{path}: is an IDX file, as MNIST's: give its folder, with --data mnist --data-dir FOLDER")
    if suffix in _PACKED:
        return InputError(
            f"{path}: is packed ({suffix}): unpack it, and give the folder or the .tar file that comes out"
        )
    return InputError(
        f"{path}: has the suffix {suffix or '(none)'}, not .npy, .npz, .h5, .hdf5, .txt, .lst or .tar: give one of "
        "these, or a folder of pictures"
    )


def _read_any_folder(path: Path) -> tuple[EncodedPictures, EncodedPictures]:
    if is_saved(path):
        return read_saved(path)
    return read_tars(tars, str(path)) if (tars := _tars(path)) else read_folder(path)


def _tars(path: Path) -> list[Path]:
    """Return the archives in a folder that has neither pictures nor folders; else none."""
    found = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                suffix = Path(entry.name).suffix.lower()
                if entry.name.startswith("."):
                    continue
                if suffix in SUFFIXES or entry.is_dir():
                    return []
                if suffix == ".tar":
                    found.append(path / entry.name)
    except OSError:  # the reader of the folder reports it
        return []
    return sorted(found)
