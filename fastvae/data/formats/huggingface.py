"""Pictures in a folder that Hugging Face's ``datasets`` wrote with ``save_to_disk``."""

import os
from importlib import import_module
from pathlib import Path
from typing import Any

from fastvae.data.sources.source import EncodedPictures
from fastvae.data.sources.split import TESTING, split_of, split_pictures
from fastvae.data.sources.unpacking_limits import as_input_error, read_picture
from fastvae.utils.errors import InputError
from fastvae.utils.files import check_regular, read_json

from .checks.arrow import check_arrow
from .file_names import warn

_DICT = "dataset_dict.json"
_INFO = "dataset_info.json"
_STATE = "state.json"


class HuggingFacePictures:
    """A column of pictures, as :class:`.EncodedPictures`.

    Args:
        dataset: a ``datasets.Dataset`` of this one column, whose pictures are not decoded.
        label: what it is called, for people.
    """

    def __init__(self, dataset: Any, label: str) -> None:
        self._dataset = dataset
        self._label = label
        (self._column,) = dataset.column_names

    def __len__(self) -> int:
        return len(self._dataset)

    def encoded(self, index: int) -> bytes:
        picture = self._dataset[index][self._column] or {}
        data: bytes | None = picture.get("bytes")
        if data is not None:
            return data
        if picture.get("path"):  # a file of its own
            return read_picture(picture["path"])
        raise OSError("the row holds no picture")

    def name(self, index: int) -> str:
        return f"{self._label} row {index}"

    def file(self, index: int) -> bytes:  # noqa: ARG002 -- the same for all
        return os.fsencode(os.path.join(self._label, _STATE))  # save_to_disk writes it every time


def is_saved(path: Path) -> bool:
    """Return whether ``save_to_disk`` wrote a folder."""
    return os.path.exists(path / _DICT) or all(os.path.exists(path / name) for name in (_INFO, _STATE))


def read_saved(path: Path) -> tuple[EncodedPictures, EncodedPictures]:
    """Open training and test pictures in a folder that ``save_to_disk`` of a Dataset or a DatasetDict wrote.

    The splits are those for training and for testing by their names (:func:`.split_of`); if there is one set alone,
    every tenth picture is for testing. Only Arrow files are read: no loading script is ever run.

    Raises:
        InputError: ``datasets`` is not installed, the folder is damaged, or has no such splits or no pictures.
    """
    try:
        datasets = import_module("datasets")  # optional, and slow to import
    except ModuleNotFoundError as error:
        raise InputError(
            f"{path}: folders of Hugging Face need datasets, which is not installed: pip install fastvae[hf]"
        ) from error
    # pyarrow, json and datasets have errors of their own for damage
    with as_input_error(lambda why: f"{path}: can't be read as a saved data set ({why}): save it again"):
        names = _checked(path)
        splits = {split: datasets.Dataset.load_from_disk(os.fspath(path / split)) for split in names}
        return _splits(datasets, path, splits)


def _splits(datasets: Any, path: Path, splits: dict[str, Any]) -> tuple[EncodedPictures, EncodedPictures]:
    if len(splits) == 1:
        return split_pictures(_column(datasets, path, *splits.popitem()), str(path))
    ranks = {rank: name for name in splits if (rank := split_of(name)) is not None}
    test = min((rank for rank in ranks if rank), default=None)
    if 0 not in ranks or test is None:
        raise InputError(
            f"{path}: has the splits {', '.join(splits) or '(none)'}, not train and one of {', '.join(TESTING)}: "
            "rename them, or give the folder of one"
        )
    return _column(datasets, path, ranks[0], splits[ranks[0]]), _column(
        datasets, path, ranks[test], splits[ranks[test]]
    )


def _checked(path: Path) -> list[str]:
    """Return the names of the splits, "" for a single set. A folder that names files elsewhere is refused unopened.

    It is decided here alone which of the two a folder is, so that the files that are checked are those that are opened.
    """
    if "::" in str(path) or "://" in str(path):  # datasets takes such a name for an address
        raise InputError(f"{path}: has :: or :// in its name, which datasets takes for an address: rename it")
    splits = [""]
    if os.path.exists(path / _DICT):
        splits = [_plain(path / _DICT, split) for split in read_json(path / _DICT)["splits"]]
    for folder in (path / split for split in splits):
        check_regular(folder / _INFO)
        state = read_json(folder / _STATE)
        for entry in [*state["_data_files"], *(state.get("_indices_data_files") or ())]:
            file = folder / _plain(folder / _STATE, entry["filename"])
            if not Path(os.path.realpath(file)).is_relative_to(os.path.realpath(path)):
                raise InputError(f"{file}: is a link that leaves {path}: copy the file into the folder")
            check_regular(file)
            check_arrow(file)
    return splits


def _plain(where: Path, name: Any) -> str:
    if not isinstance(name, str) or name in ("", ".", "..") or set(name) & set("/\\\0:"):
        raise InputError(f"{where}: names {name!r}, which is not a file in its folder: save the data set again")
    return name


def _column(datasets: Any, path: Path, split: str, dataset: Any) -> HuggingFacePictures:
    names = [name for name, feature in dataset.features.items() if isinstance(feature, datasets.Image)]
    name = "image" if "image" in names else names[0] if len(names) == 1 else None
    if name is None:
        raise InputError(
            f"{path / split}: has {len(names)} columns of pictures among {', '.join(dataset.column_names)}, not one: "
            "cast one to datasets.Image(), name it 'image', and save it again"
        )
    pictures = dataset.with_format(None).select_columns([name]).cast_column(name, datasets.Image(decode=False))
    column = pictures.data.column(name)
    column.validate(full=True)  # offsets out of the file would end the process
    _tell_files(path / split, column)
    return HuggingFacePictures(pictures, str(path / split))


def _tell_files(label: Path, column: Any) -> None:
    """Log one line where pictures are files of their own, anywhere on this machine."""
    compute = import_module("pyarrow.compute")
    paths = compute.struct_field(column, "path")
    named = paths.filter(compute.and_(paths.is_valid(), compute.struct_field(column, "bytes").is_null()))
    if len(named):
        warn(f"{label}: {len(named):,} of its pictures are files of their own, {named[0]} for one")
