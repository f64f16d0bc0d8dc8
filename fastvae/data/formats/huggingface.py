"""Pictures in a folder that Hugging Face's ``datasets`` wrote with ``save_to_disk``."""

import os
from importlib import import_module
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...files import reason
from ..source import Encoded
from .split import halved

_TESTS = ("test", "validation", "valid", "val")


class Column:
    """A column of pictures as an :class:`Encoded`.

    Args:
        dataset: a ``datasets.Dataset`` of this one column, whose pictures are not decoded.
        label: what it is called, for people.
    """

    def __init__(self, dataset: Any, label: str) -> None:
        self._dataset, self._label = dataset, label
        (self._column,) = dataset.column_names

    def __len__(self) -> int:
        return len(self._dataset)

    def encoded(self, index: int) -> bytes:
        picture = self._dataset[index][self._column] or {}
        data: bytes | None = picture.get("bytes")
        if data is not None:
            return data
        if picture.get("path"):  # a file of its own
            return Path(picture["path"]).read_bytes()
        raise OSError("the row holds no picture")

    def name(self, index: int) -> str:
        return f"{self._label} row {index}"


def is_saved(path: Path) -> bool:
    """Whether ``save_to_disk`` wrote a folder."""
    return os.path.exists(path / "dataset_dict.json") or all(
        os.path.exists(path / name) for name in ("dataset_info.json", "state.json")
    )


def read_saved(path: Path) -> tuple[Encoded, Encoded]:
    """Training and test pictures of a folder by ``Dataset.save_to_disk`` or ``DatasetDict.save_to_disk``.

    The splits are ``train`` and one of ``test``, ``validation``, ``valid``, ``val``; of a single set every tenth
    picture is for testing. Only Arrow files are read: no loading script is ever run.

    Raises:
        InputError: ``datasets`` is not installed, the folder is damaged, or has no such splits or no pictures.
    """
    try:
        datasets = import_module("datasets")  # optional, and slow to import
    except ModuleNotFoundError as error:
        raise InputError(
            f"{path}: folders of Hugging Face need datasets, which is not installed: pip install fastvae[hf]"
        ) from error
    try:
        saved = datasets.load_from_disk(os.fspath(path))
    except Exception as error:  # pyarrow, json and datasets have errors of their own for damage
        raise InputError(f"{path}: can't be read as a saved data set ({reason(error)}): save it again") from error
    splits = dict(saved) if isinstance(saved, datasets.DatasetDict) else {"": saved}
    if len(splits) == 1:
        return halved(_column(datasets, path, *splits.popitem()), str(path))
    test = next((name for name in _TESTS if name in splits), None)
    if "train" not in splits or test is None:
        raise InputError(
            f"{path}: has the splits {', '.join(splits) or '(none)'}, not train and one of {', '.join(_TESTS)}: "
            "rename them, or give the folder of one"
        )
    return _column(datasets, path, "train", splits["train"]), _column(datasets, path, test, splits[test])


def _column(datasets: Any, path: Path, split: str, dataset: Any) -> Column:
    names = [name for name, feature in dataset.features.items() if isinstance(feature, datasets.Image)]
    name = "image" if "image" in names else names[0] if len(names) == 1 else None
    if name is None:
        raise InputError(
            f"{path / split}: has {len(names)} columns of pictures among {', '.join(dataset.column_names)}, not one: "
            "cast one to datasets.Image(), name it 'image', and save it again"
        )
    pictures = dataset.with_format(None).select_columns([name]).cast_column(name, datasets.Image(decode=False))
    return Column(pictures, str(path / split))
