"""The loader for pictures by NVIDIA DALI: all of it on the GPU, or decoded by threads on the CPU."""

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Unpack

from fastvae.data.sources.decoded import Pictures, is_known, square
from fastvae.utils.errors import InputError
from fastvae.utils.files import reason
from fastvae.utils.machine import cores

from .augment import Augment, Places
from .base import Options, OrderedLoader
from .batch import Batch
from .prefetch import Ahead

MISSING = "--loader dali needs NVIDIA DALI, which is not installed: pip install fastvae[dali], or use --loader auto"
_FAILURES = 3  # in a row, of batches whose pictures are whole: DALI is not what it should be
_NOTHING = np.zeros(1, dtype=np.uint8)  # no picture, and not empty, which DALI would not name
_LOG = logging.getLogger("fastvae")
_Column = list[NDArray[Any]]


class DaliLoader(OrderedLoader):
    """A :class:`fastvae.data.Loader` of pictures, in channels_last.

    DALI asks for a batch by its number and gets the bytes of this process' pictures of that step, so that it may be
    ahead, and a run that goes on begins anywhere.

    On the CPU it decodes, to the bit as Pillow does, and :class:`Pictures` and :class:`Augment` do the rest: torch
    resizes bytes in a third of the time that DALI's resizing takes. In grey it is within 4 of 255 levels, and half a
    level in the mean, for it reads the grey that a JPEG has, and rounds that of others. On a GPU it does everything,
    and rounds otherwise in resizing.

    Args:
        pictures: read by DALI where it can, and by themselves in a batch that it cannot decode, and in :meth:`fetch`.
        augment: cuts and flips what is delivered; None delivers all of it.
        options: of :class:`OrderedLoader`.

    Raises:
        InputError: DALI is not installed, or a number is out of its range; while it is used, what ``pictures`` raise,
            or DALI fails where nothing is wrong with them.

    waited: seconds in which batches were not there when they were asked for.
    """

    def __init__(self, pictures: Pictures, *, augment: Augment | None = None, **options: Unpack[Options]) -> None:
        try:
            import_module("nvidia.dali.fn")
        except ImportError as error:
            raise InputError(MISSING) from error
        super().__init__(len(pictures), **options)
        self.pictures, self.augment = pictures, augment
        self.waited = 0.0
        self._idle: _Reader | None = None  # at the end of its epoch, ready for another

    def fetch(self, step: int) -> Batch:
        share, indices = self.share(step), self.indices(step)
        images = self.pictures.read(indices.tolist())
        if self.augment is not None:
            images = self.augment(images, self._epoch, indices)
        return Batch(images.to(self.device), row_offset=share.first, rows=share.rows)

    def first(self, count: int) -> Tensor:
        images = self.pictures.read(range(min(count, self.count))).to(self.device)
        return images if self.augment is None else self.augment.in_middle(images)

    def encoded(self, step: int) -> tuple[_Column, ...]:
        """What DALI is given of a step: the pictures' bytes; on a GPU also where to cut them, and which to mirror."""
        indices = self.indices(step)
        pictures = [self._bytes(index) for index in indices.tolist()]
        if self.device.type != "cuda":
            return (pictures,)
        if self.augment is None:
            places = Places(*[torch.zeros_like(indices)] * 3)
        else:
            places = self.augment.places(self._epoch, indices)
        return pictures, *(list(column.to(torch.int32).numpy()) for column in places)

    def _bytes(self, index: int) -> NDArray[np.uint8]:
        """A picture as DALI takes it. What cannot be read fails there, in its own batch, not in one before."""
        try:
            content = self.pictures.encoded.encoded(self.pictures.stand_in(index))
        except Exception:
            return _NOTHING
        return np.frombuffer(content, dtype=np.uint8) if is_known(content) else _NOTHING

    def _deliver(self, steps: Sequence[int]) -> Iterator[Batch]:
        # An iteration that was left half-way, but is still held, has a reader of its own.
        reader, self._idle = self._idle or _Reader(self), None
        # A share of a small last batch may be empty, which DALI does not know.
        reader.begin([step for step in steps if len(self.indices(step))])
        with closing(Ahead(reader.batch, steps, self.device)) as ahead:
            try:
                yield from ahead
            finally:
                self.waited += ahead.waited
        reader.end()
        self._idle = reader


class _Feed:
    """What DALI calls for the batches of some steps, by their number. It has no hold on the pipeline, so that one that
    is let go is freed at once.
    """

    def __init__(self, loader: DaliLoader) -> None:
        self.loader, self.steps = loader, list[int]()

    def batch(self, info: Any) -> tuple[_Column, ...]:
        if info.iteration >= len(self.steps):
            raise StopIteration
        return self.loader.encoded(self.steps[info.iteration])


class _Reader:
    """A pipeline, and another where one failed."""

    def __init__(self, loader: DaliLoader) -> None:
        self._loader, self._feed = loader, _Feed(loader)
        self._left: list[int] = []
        self._failures = 0
        self._pipeline: Any = None

    def begin(self, steps: list[int]) -> None:
        """Be ready to read the batches of some steps in turn."""
        self._left, self._feed.steps = steps, list(steps)
        if self._pipeline is None and steps:
            self._pipeline = _build(self._feed)

    def batch(self, step: int) -> Batch:
        """The batch of the next step."""
        share = self._loader.share(step)
        if share.first == share.end:
            return self._loader.fetch(step)
        self._left.pop(0)
        try:
            images = self._run(step)
        except Exception as error:
            known = len(self._loader.pictures.bad)
            batch = self._loader.fetch(step)  # which names the picture
            found = len(self._loader.pictures.bad) > known
            self._failures = 0 if found else self._failures + 1
            if self._failures == _FAILURES:
                raise InputError(
                    f"DALI fails where pictures are whole ({_words(error)}): use --loader torch"
                ) from error
            if not found:
                _LOG.warning("DALI could not decode the batch of step %d, Pillow did (%s)", step, _words(error))
            self._pipeline = None  # it is of no use any more
            self.begin(self._left)
            return batch
        self._failures = 0
        return Batch(images, row_offset=share.first, rows=share.rows)

    def end(self) -> None:
        """After the last step, be ready for another epoch."""
        if self._pipeline is None:
            return
        try:
            self._pipeline.run()
        except StopIteration:
            self._pipeline.reset()
        else:
            raise AssertionError("DALI delivered more batches than it was asked for")

    def _run(self, step: int) -> Tensor:
        """What the pipeline makes of the next batch: (b, C, size, size)."""
        loader, pictures = self._loader, self._loader.pictures
        if loader.device.type == "cuda":
            (output,) = self._pipeline.run(torch.cuda.current_stream(loader.device))
            # In memory of torch's: DALI's is used again in the order of this stream, not of the step's.
            made: Tensor = torch.utils.dlpack.from_dlpack(output.as_tensor()).clone()
            return made.permute(0, 3, 1, 2)
        (output,) = self._pipeline.run()
        images = pictures.empty(len(output))
        if output.is_dense_tensor():  # of one size, in one call
            images.copy_(square(torch.from_numpy(output.as_array()).permute(0, 3, 1, 2), pictures.size))
        else:
            for row, picture in enumerate(output):
                images[row] = square(torch.from_numpy(np.asarray(picture))[None].permute(0, 3, 1, 2), pictures.size)
        return images if loader.augment is None else loader.augment(images, loader._epoch, loader.indices(step))


def _build(feed: _Feed) -> Any:
    loader = feed.loader
    pictures, augment, device = loader.pictures, loader.augment, loader.device
    dali, fn, types = (import_module(f"nvidia.dali{name}") for name in ("", ".fn", ".types"))
    lowest = import_module("nvidia.dali.math").min
    on_gpu = device.type == "cuda"
    size = pictures.size if augment is None else augment.size

    @dali.pipeline_def(  # type: ignore[untyped-decorator]
        batch_size=-(-loader.batch_size // loader.world_size),
        num_threads=max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))),
        device_id=_device_id(device),
        exec_dynamic=True,
    )
    def pipeline() -> Any:
        columns = [(types.UINT8, 1), *[(types.INT32, 0)] * (3 if on_gpu else 0)]
        dtypes, dimensions = map(list, zip(*columns, strict=True))
        encoded, *places = fn.external_source(
            source=feed.batch, num_outputs=len(columns), batch=True, batch_info=True, dtype=dtypes, ndim=dimensions,
        )  # fmt: skip
        # The shape is in a picture's head, so that only the middle of it need be decoded.
        shape = fn.peek_image_shape(encoded, dtype=types.INT32)
        side = lowest(shape[0], shape[1])
        begin = fn.stack((shape[0] - side) // 2, (shape[1] - side) // 2)
        middle = fn.decoders.image_slice(
            encoded, begin, fn.stack(side, side),
            axes=(0, 1),
            device="mixed" if on_gpu else "cpu",
            output_type=types.RGB if pictures.channels == 3 else types.GRAY,
        )  # fmt: skip
        if not on_gpu:
            return middle
        top, left, flip = places
        resized = fn.resize(middle, size=[pictures.size] * 2, interp_type=types.INTERP_LINEAR, antialias=True)
        return fn.flip(fn.slice(resized, fn.stack(top, left), [size, size], axes=(0, 1)), horizontal=flip)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about GPUs that are not there
        built = pipeline()
        built.build()
    return built


def _device_id(device: torch.device) -> int | None:
    """The GPU's number; None for the CPU."""
    if device.type != "cuda":
        return None
    return torch.cuda.current_device() if device.index is None else device.index


def _words(error: Exception) -> str:
    """The line of DALI's report that says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if line.startswith("Error")), reason(error))
