"""The loader for pictures by NVIDIA DALI: everything on the GPU, or decoding by threads on the CPU."""

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

from fastvae.data.sources.decoded import DecodedSource, begins_as_picture
from fastvae.data.sources.resize import middle_square
from fastvae.utils.errors import InputError
from fastvae.utils.files import reason
from fastvae.utils.machine import cores

from .augment import Augment, Places
from .base import Loader, LoaderOptions
from .batch import Batch
from .prefetch import Prefetcher

MISSING = "--loader dali needs NVIDIA DALI, which is not installed: pip install fastvae[dali], or use --loader auto"
_FAILURES = 3  # batches in a row that DALI cannot decode though their pictures are whole: DALI itself is broken
_NOTHING = np.zeros(1, dtype=np.uint8)  # not a picture; DALI's error for an empty one does not name its batch
_LOG = logging.getLogger("fastvae")
_Column = list[NDArray[Any]]


class DaliLoader(Loader):
    """A :class:`.Loader` of pictures, in channels_last.

    DALI asks for a batch by its number and gets the bytes of this process's pictures in that step, so it can prefetch,
    and a resumed run can begin anywhere.

    On the CPU, DALI decodes, to the bit as Pillow does, and :class:`.DecodedSource` and :class:`.Augment` do the rest:
    torch resizes bytes in a third of the time that DALI's resizing takes. Grey pixels are within 4 of 255 levels, and
    half a level in the mean, because DALI reads the grey that a JPEG stores, and rounds differently in converting
    colours to grey. On a GPU, DALI does everything, and rounds differently in resizing.

    Args:
        pictures: the source. It reads the pictures itself in :meth:`fetch`, and in batches that DALI cannot decode.
        augment: crops and mirrors the images of each batch; None delivers them as they are.
        options: those of :class:`.Loader`.

    Raises:
        InputError: DALI is not installed, or a number is out of its range; in use, whatever ``pictures`` raises, or
            DALI fails although nothing is wrong with them.

    waited: seconds that the caller waited for batches.
    """

    def __init__(
        self, pictures: DecodedSource, *, augment: Augment | None = None, **options: Unpack[LoaderOptions]
    ) -> None:
        try:
            import_module("nvidia.dali.fn")
        except ImportError as error:
            raise InputError(MISSING) from error
        super().__init__(len(pictures), **options)
        self.pictures = pictures
        self.augment = augment
        self.waited = 0.0
        self._idle: _Reader | None = None  # at the end of its epoch, ready for another

    def fetch(self, step: int) -> Batch:
        share = self.share(step)
        indices = self.indices(step)
        images = self.pictures.read(indices.tolist())
        if self.augment is not None:
            images = self.augment(images, self._epoch, indices)
        return Batch(images.to(self.device), row_offset=share.first, rows=share.rows)

    def first(self, count: int) -> Tensor:
        images = self.pictures.read(range(min(count, self.count))).to(self.device)
        return images if self.augment is None else self.augment.in_middle(images)

    def encoded(self, step: int) -> tuple[_Column, ...]:
        """Return DALI's inputs of a step: the pictures' bytes; on a GPU also where to crop and which to mirror."""
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
        """Return a picture's bytes for DALI. One that cannot be read must fail in its own batch, not in one before."""
        try:
            content = self.pictures.encoded.encoded(self.pictures.stand_in(index))
        except Exception:
            return _NOTHING
        return np.frombuffer(content, dtype=np.uint8) if begins_as_picture(content) else _NOTHING

    def _deliver(self, steps: Sequence[int]) -> Iterator[Batch]:
        # An iteration that was left half-way may still be held, and keeps its reader.
        reader = self._idle or _Reader(self)
        self._idle = None
        # A share of a small last batch may be empty, which DALI does not allow.
        reader.begin([step for step in steps if len(self.indices(step))])
        with closing(Prefetcher(reader.batch, steps, self.device)) as prefetcher:
            try:
                yield from prefetcher
            finally:
                self.waited += prefetcher.waited
        reader.end()
        self._idle = reader


class _Feed:
    """The function that DALI calls for the batch of a number.

    It holds no reference to the pipeline, so that a pipeline that is dropped is freed at once.
    """

    def __init__(self, loader: DaliLoader) -> None:
        self.loader = loader
        self.steps: list[int] = []

    def batch(self, info: Any) -> tuple[_Column, ...]:
        if info.iteration >= len(self.steps):
            raise StopIteration
        return self.loader.encoded(self.steps[info.iteration])


class _Reader:
    """A pipeline, which is replaced when it fails."""

    def __init__(self, loader: DaliLoader) -> None:
        self._loader = loader
        self._feed = _Feed(loader)
        self._left: list[int] = []
        self._failures = 0
        self._pipeline: Any = None

    def begin(self, steps: list[int]) -> None:
        """Get ready to read the batches of some steps in turn."""
        self._left = steps
        self._feed.steps = list(steps)
        if self._pipeline is None and steps:
            self._pipeline = _build(self._feed)

    def batch(self, step: int) -> Batch:
        """Read the batch of the next step."""
        share = self._loader.share(step)
        if share.first == share.end:
            return self._loader.fetch(step)
        self._left.pop(0)
        try:
            images = self._run(step)
        except Exception as error:
            known = len(self._loader.pictures.bad)
            batch = self._loader.fetch(step)  # names the bad picture
            found = len(self._loader.pictures.bad) > known
            self._failures = 0 if found else self._failures + 1
            if self._failures == _FAILURES:
                raise InputError(
                    f"DALI fails where pictures are whole ({_words(error)}): use --loader torch"
                ) from error
            if not found:
                _LOG.warning("DALI could not decode the batch of step %d, Pillow did (%s)", step, _words(error))
            self._pipeline = None  # a pipeline that failed cannot be used again
            self.begin(self._left)
            return batch
        self._failures = 0
        return Batch(images, row_offset=share.first, rows=share.rows)

    def end(self) -> None:
        """After the last step, get ready for another epoch."""
        if self._pipeline is None:
            return
        try:
            self._pipeline.run()
        except StopIteration:
            self._pipeline.reset()
        else:
            raise AssertionError("DALI delivered more batches than it was asked for")

    def _run(self, step: int) -> Tensor:
        """Run the pipeline for the next batch: (b, C, size, size)."""
        loader = self._loader
        pictures = loader.pictures
        if loader.device.type == "cuda":
            (output,) = self._pipeline.run(torch.cuda.current_stream(loader.device))
            # Copied to torch's memory: DALI reuses its own in the order of this stream, not of the step's.
            made: Tensor = torch.utils.dlpack.from_dlpack(output.as_tensor()).clone()
            return made.permute(0, 3, 1, 2)
        (output,) = self._pipeline.run()
        images = pictures.empty(len(output))
        if output.is_dense_tensor():  # all of one size: resized in one call
            images.copy_(middle_square(torch.from_numpy(output.as_array()).permute(0, 3, 1, 2), pictures.size))
        else:
            for row, picture in enumerate(output):
                images[row] = middle_square(
                    torch.from_numpy(np.asarray(picture))[None].permute(0, 3, 1, 2), pictures.size
                )
        return images if loader.augment is None else loader.augment(images, loader._epoch, loader.indices(step))


def _build(feed: _Feed) -> Any:
    loader = feed.loader
    pictures = loader.pictures
    augment = loader.augment
    device = loader.device
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
        # A picture's header has its shape, so that only the middle need be decoded.
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
        warnings.simplefilter("ignore")  # DALI warns about GPUs that are not there
        built = pipeline()
        built.build()
    return built


def _device_id(device: torch.device) -> int | None:
    """Return the GPU's number; None for the CPU."""
    if device.type != "cuda":
        return None
    return torch.cuda.current_device() if device.index is None else device.index


def _words(error: Exception) -> str:
    """Return the line of DALI's report that says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if line.startswith("Error")), reason(error))
