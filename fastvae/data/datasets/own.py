"""Images as people have them in Python, as a data set: arrays, tensors, lists, torch's data sets and loaders, paths."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastvae.data.formats.arrays import IN_MEMORY, NumpySource
from fastvae.data.formats.file_names import NameList, warn
from fastvae.data.formats.folder import FilePictures
from fastvae.data.sources.decoded import DecodedSource, OnBadImage
from fastvae.data.sources.source import Source
from fastvae.data.sources.split import JoinedSource, SourceSubset, Subset, train_test_indices
from fastvae.data.sources.tensor import TensorSource, read_all
from fastvae.data.sources.torch_dataset import DatasetSource, as_pixels, images_first, tensor_of
from fastvae.utils.errors import InputError

from .dataset import Dataset
from .load import as_one_size, load
from .own_kinds import REMEDY, describe, is_labelled, splits_in, torch_data

_LOOKS = 16  # items that are read twice


def own_dataset(
    data: Any,
    *,
    size: int | None = None,
    channels: int = 3,
    on_bad: OnBadImage = "stop",
    name: str = "your data set",
) -> Dataset:
    """Return images of the caller's own as a data set.

    Args:
        data: images, of which every tenth is for testing; or a pair of them for training and testing, as a tuple, a
            list of two sets, or a mapping by the splits' names. Each is:

            - a tensor (N, C, H, W), (N, H, W) or (N, D), or an array of these or of (N, H, W, C) with C in 1, 3, 4 and
              sides above 4; uint8, bool or floats. A gradient is not asked for.
            - a list of images: tensors, arrays, Pillow images, or paths of pictures, which need ``size``.
            - a map-style data set of torch's, whose items are or begin with images. Random transforms are refused.
            - torch's DataLoader: its data set is read, in fastvae's own order and batches, and one line says so.
            - a tuple of one of these and its labels, one for each image, which are left out.
            - a path (in a pair; one alone is :func:`.load`'s), or a :class:`fastvae.data.Source`.
        size: the side in pixels that pictures are cropped to a square and resized to.
        channels: 3 (RGB) or 1 (grey), which pictures in files are decoded to.
        on_bad: what to do with a picture in a file that cannot be decoded: "stop" or "skip".
        name: what the images are called, for people.

    Raises:
        InputError: something else, with its type and shape; images that do not fit together, are empty, or NaN.
    """
    if isinstance(data, Dataset):
        return data
    reader = _Reader(size, channels, on_bad)
    splits = splits_in(data)
    if splits is None:
        whole = reader.read(data, "the images")
        train_index, test_index = train_test_indices(len(whole), name)
        train, test = (_rows(whole, index) for index in (train_index, test_index))
    else:
        train = reader.read(splits[0], "the images for training")
        test = reader.read(splits[1], "the images for testing")
        if train.shape[1:] != test.shape[1:] or train.dtype != test.dtype:
            raise InputError(
                f"the images for training are {train.dtype} of shape {tuple(train.shape)}, those for testing "
                f"{test.dtype} of {tuple(test.shape)}: both need one type and one (C, H, W)"
            )
    if sum(_bytes(split) for split in (train, test)) <= IN_MEMORY:
        train, test = (_in_memory(split) for split in (train, test))
    return Dataset(name, train, test)


class _Reader:
    """Makes sources of what people have."""

    def __init__(self, size: int | None, channels: int, on_bad: OnBadImage) -> None:
        self._size = size
        self._channels = channels
        self._on_bad = on_bad

    def read(self, data: Any, label: str) -> Source:
        library = torch_data()
        if is_labelled(data):
            return self.read(data[0], label)
        if isinstance(data, library.DataLoader):
            return self.read(_of_loader(data), label)
        if isinstance(data, (np.ndarray, Tensor)):
            return _array(data, label) if isinstance(data, np.ndarray) else _tensor(data, label)
        if isinstance(data, (list, tuple)):
            return self._list(data, label)
        if isinstance(data, (str, os.PathLike)):
            found = load(path_name(data), size=self._size, channels=self._channels, on_bad=self._on_bad)
            return JoinedSource(found.train, found.test)
        return self._object(data, label)

    def _object(self, data: Any, label: str) -> Source:
        if isinstance(data, torch_data().IterableDataset):
            raise InputError(
                f"{label}: an IterableDataset ({type(data).__name__}) cannot be read by index, so that no order could "
                "be kept or resumed: give torch.stack(list(it)), or a data set with __getitem__ and __len__"
            )
        if all(hasattr(data, name) for name in ("read", "shape", "dtype", "__len__")):
            return _source(data, label)
        if hasattr(data, "getexif"):
            raise InputError(f"{label}: a single picture ({type(data).__name__} {data.size}): give a list of several")
        if isinstance(data, Mapping | bytes) or not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
            raise InputError(f"{label}: data is a {describe(data)}: {REMEDY}")
        return self._dataset(data, label)

    def _list(self, data: Any, label: str) -> Source:
        if not data:
            raise InputError(f"{label}: data is an empty {type(data).__name__}: {REMEDY}")
        if all(isinstance(item, (str, os.PathLike)) for item in data):
            names = NameList(os.fsencode(os.path.abspath(os.path.expanduser(item))) for item in data)
            missing = next((item for item in data if not os.path.isfile(os.path.expanduser(item))), None)
            if missing is not None:
                raise InputError(f"{label}: {str(missing)!r} is not a file: give the paths of pictures that are there")
            return as_one_size(FilePictures(Path("/"), names), label, self._size, self._channels, self._on_bad)
        return _items(data, label, self._size)

    def _dataset(self, data: Any, label: str) -> Source:
        """Return the source of a map-style data set: by its tensors where it has them, else item by item."""
        # A subclass may make other items of them, by a transform for example.
        if type(data) is torch_data().TensorDataset:
            return self.read(data.tensors[0], label)
        if type(data) is torch_data().Subset:
            return _rows(self.read(data.dataset, label), np.asarray(data.indices, dtype=np.int64))
        source = _items(data, label, self._size)
        few = range(min(_LOOKS, len(source)))
        if not torch.equal(source.read(few), source.read(few)):
            raise InputError(
                f"{label}: this {type(data).__name__} gives another image each time that it is asked for one, so that "
                "no run could be resumed: leave out its random transforms, or use flip and crop of TrainConfig"
            )
        return source


def _items(data: Any, label: str, size: int | None) -> DatasetSource:
    try:
        return DatasetSource(data, size)
    except InputError as error:
        raise InputError(f"{label}: {error}") from error
    except (KeyError, IndexError, TypeError) as error:  # a table, say, whose keys are not numbers
        raise InputError(
            f"{label}: a {describe(data)} has no item 0 ({type(error).__name__}: {error}): {REMEDY}"
        ) from error


def _of_loader(loader: Any) -> Any:
    """Return the data set of a torch DataLoader, and say what of the loader is not used.

    Raises:
        InputError: the loader has a sampler, a batch sampler or a collate function that decides what the images are.
    """
    library = torch_data()
    if isinstance(loader.dataset, library.IterableDataset):
        return loader.dataset
    known = (library.SequentialSampler, library.RandomSampler, library.DistributedSampler)
    replaces = isinstance(loader.sampler, library.RandomSampler) and loader.sampler.replacement
    own_batches = type(loader.batch_sampler) not in (library.BatchSampler, type(None))
    if own_batches or not isinstance(loader.sampler, known) or replaces:
        sampler = loader.batch_sampler if own_batches else loader.sampler
        raise InputError(
            f"a DataLoader with a {type(sampler).__name__} chooses its images itself, but fastvae reads the data set "
            "in an order of its own: give the data set, or a torch.utils.data.Subset of it"
        )
    if getattr(loader.collate_fn, "__module__", "") != "torch.utils.data._utils.collate":
        collate = getattr(loader.collate_fn, "__name__", type(loader.collate_fn).__name__)
        raise InputError(
            f"a DataLoader with its own collate_fn ({collate}) may change the images, but fastvae makes the batches: "
            "give a data set whose items are the images"
        )
    warn(
        "of a DataLoader, the data set alone is used: its order follows the run's seed, and its batches the run's "
        "batch_size, not the loader's own"
    )
    return loader.dataset


def _tensor(images: Tensor, label: str) -> TensorSource:
    if images.is_nested or images.is_meta:
        kind = "a nested tensor" if images.is_nested else "on the meta device, without values"
        raise InputError(f"{label}: the tensor is {kind}: give a dense tensor (N, C, H, W)")
    if images.layout != torch.strided or images.is_complex() or images.is_quantized:
        raise InputError(f"{label}: {describe(images)} of layout {images.layout}: give a dense tensor of real numbers")
    shape = tuple(images.shape)
    if images.ndim not in (2, 3, 4) or 0 in shape:
        raise InputError(
            f"{label} is {images.dtype} of shape {shape}, but must be uint8, bool or floats of shape (N, C, H, W), "
            "(N, H, W) or (N, D) with N >= 1: reshape them"
        )
    images = images if images.ndim == 4 else images[:, None] if images.ndim == 3 else images[:, None, None]
    return TensorSource(as_pixels(images, label))


def _array(array: np.ndarray[Any, Any], label: str) -> Source:
    if isinstance(array, np.memmap) and array.ndim in (2, 3, 4) and array.nbytes > IN_MEMORY:
        return NumpySource(label, array)  # stays in its file
    return _tensor(tensor_of(images_first(array, 4), label), label)


def _source(source: Any, label: str) -> Source:
    """Check a source of the caller's own."""
    shape = tuple(source.shape)
    if len(shape) != 4 or 0 in shape or source.dtype not in (torch.uint8, torch.float32):
        raise InputError(
            f"{label} is {source.dtype} of shape {shape}, but a source must have uint8 or float32 of shape "
            "(N, C, H, W) with N >= 1"
        )
    checked: Source = source
    return checked


def _rows(source: Source, index: np.ndarray[Any, np.dtype[np.int64]]) -> Source:
    if isinstance(source, TensorSource):
        return TensorSource(source.images[torch.from_numpy(index)])
    if isinstance(source, DecodedSource):
        return DecodedSource(Subset(source.encoded, index), source.size, source.channels, source.on_bad)
    return SourceSubset(source, index)


def _in_memory(source: Source) -> Source:
    """Read a source into memory; pictures in files, which a loader may want to decode itself, stay where they are."""
    return source if isinstance(source, (TensorSource, DecodedSource)) else TensorSource(read_all(source))


def _bytes(source: Source) -> int:
    return int(np.prod(source.shape, dtype=np.int64)) * source.dtype.itemsize


def path_name(path: str | os.PathLike[str]) -> str:
    """Return the name of a path as :func:`.load` takes it: a path object never means a data set that has a name."""
    if isinstance(path, str):
        return path
    name = os.fspath(path)
    return name if os.sep in name else os.path.join(os.curdir, name)
