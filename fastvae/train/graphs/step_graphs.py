"""Training steps as CUDA graphs: the host launches many steps at once and never synchronizes.

Everything that a step reads or writes keeps its address: a counter on the device selects the batch, and weights,
moments, step counter, sums and loss scale are changed in place. The smaller batch at the end of an epoch is launched
from Python.
"""

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from fastvae.data import Batch, Loader, ResidentLoader
from fastvae.train.engine import Engine
from fastvae.train.optim.build import takes_device_rate

from .cuda_graphs import CudaGraphs, Graph, Graphs

STEPS = 10  # in a graph; between graphs the host reads signals, logs and saves
_WARM_UP = 3  # as torch's notes on CUDA graphs advise: lazy initialisation, library handles, compilation

# The warm-up zeroes the state that it makes, but the state of these does not start at zero.
_STARTS_ELSEWHERE = (torch.optim.NAdam, torch.optim.Rprop, torch.optim.ASGD)


def can_capture(engine: Engine, loader: ResidentLoader) -> bool:
    """Return whether steps can be captured: on a GPU, with an optimiser that reads nothing on the host, without FSDP.

    A graph replays the operators of one step, so a model that may do something else in another step is launched from
    Python. An epoch must have a full batch. With several ranks the gradients' all-reduce is captured too, which NCCL
    allows.
    """
    if engine.is_sharded or loader.augment is not None:  # augmentation draws by the epoch, which the host knows
        return False
    if loader.count < loader.batch_size or engine.why_not_replayed(loader.fetch(0)) is not None:
        return False
    optimizer = engine.optimizer
    group = optimizer.param_groups[0]
    if isinstance(optimizer, _STARTS_ELSEWHERE) or group.get("dampening"):  # the first step does not apply dampening
        return False
    return takes_device_rate(optimizer) and (bool(group.get("fused")) or not engine.scaler.is_enabled())


class BatchSource(Protocol):
    """The batches of captured steps; a :class:`fastvae.data.ResidentLoader` is one.

    batch_size: rows of a global batch. place: () int64 on the device, the step in the epoch that ``follow`` reads.
    """

    batch_size: int
    place: Tensor

    def follow(self) -> Batch:
        """Return the batch at ``place``, and advance ``place`` on the device."""

    def full_steps_left(self) -> int:
        """Return how many full batches are left in the epoch, as the host knows."""

    def skip(self, steps: int) -> None:
        """Count steps on the host that a graph has taken on the device."""


class CaptureError(Exception):
    """A step cannot be captured; the message says why in one line (it synchronizes, or copies from the host, say)."""


class StepGraphs:
    """CUDA graphs of an engine's steps over the batches of a loader: one of many steps, and one of a single step.

    Args:
        engine: with an optimiser that can be captured.
        loader: on the same device, at any place in an epoch of at least one full batch.
        graphs: makes the graphs.
        sizes: steps of each graph, the largest first.

    Raises:
        CaptureError: a step synchronizes, or cannot be captured for another reason. The engine's tensors are restored.
    """

    def __init__(self, engine: Engine, loader: BatchSource, graphs: Graphs, sizes: Sequence[int] = (STEPS, 1)) -> None:
        self._loader = loader
        self._graphs: dict[int, Graph] = {}
        with _restoring(engine, loader.place):
            for number in range(_WARM_UP):
                loader.place.zero_()  # there is a full batch; a run may resume at the end of an epoch
                # If one rank raised here, the others would wait in their all-reduce: with several, the capture tells.
                if number < _WARM_UP - 1 or engine.world.size > 1:
                    engine.train_step(loader.follow())
                else:  # everything lazy is done: a step that synchronizes now would always do so
                    with _raising_capture_error(), graphs.refusing_waits():
                        engine.train_step(loader.follow())
        try:
            for steps in sizes:
                with _raising_capture_error(), graphs.capture() as graph:
                    for _ in range(steps):
                        engine.train_step(loader.follow())
                self._graphs[steps] = graph
            self._records = engine.records
            self._addresses = _addresses(engine)
        except CaptureError:
            self.release()
            raise

    @classmethod
    def on_cuda(cls, engine: Engine, loader: BatchSource, sizes: Sequence[int] = (STEPS, 1)) -> "StepGraphs":
        """Warm up and capture on a side stream, as CUDA demands. Raises :class:`CaptureError`."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(stream):
                return cls(engine, loader, CudaGraphs(stream), sizes)
        finally:
            torch.cuda.current_stream().wait_stream(stream)

    @classmethod
    def where_possible(cls, engine: Engine, loader: Loader, tell: Callable[[str], None]) -> "StepGraphs | None":
        """Capture the steps of a run, or return None if that is impossible; ``tell`` gets the reason of a failure."""
        if not isinstance(loader, ResidentLoader) or not can_capture(engine, loader):
            return None
        full = loader.count // loader.batch_size
        try:
            return cls.on_cuda(engine, loader, [steps for steps in (STEPS, 1) if steps <= full])
        except CaptureError as reason:
            tell(f"steps are launched one by one, as they cannot be captured: {reason}")
            return None

    def fitting(self, limit: int) -> int:
        """Return the steps of the largest graph within ``limit`` and the epoch's remaining full batches, or 0."""
        left = min(limit, self._loader.full_steps_left())
        return next((steps for steps in self._graphs if steps <= left), 0)

    def still_hold(self, engine: Engine, batch: Batch) -> bool:
        """Return whether the model's steps are those that were captured, after the caller's code had the model."""
        return (
            engine.why_not_replayed(batch) is None
            and engine.records == self._records
            and _addresses(engine) == self._addresses
        )

    def run(self, steps: int = STEPS) -> None:
        """Take ``steps`` steps, a number that :meth:`fitting` gave."""
        self._graphs[steps].replay()
        self._loader.skip(steps)

    def release(self) -> None:
        """Release the graphs. NCCL's shutdown waits for all graphs with its kernels, even those in a traceback."""
        if self._loader.place.is_cuda:
            with suppress(RuntimeError):  # the device has failed, which the run reports itself
                torch.cuda.synchronize()
        for graph in self._graphs.values():
            graph.reset()
        self._graphs.clear()


def _addresses(engine: Engine) -> list[int]:
    """Return where the model's tensors lie: graphs know addresses alone, and a caller may set ``parameter.data``."""
    return [tensor.data_ptr() for tensor in (*engine.model.parameters(), *engine.model.buffers())]


@contextmanager
def _raising_capture_error() -> Iterator[None]:
    """Turn what a step raises into CaptureError. In a chain of errors, the first says most."""
    try:
        yield
    except Exception as error:
        first: BaseException = error
        while first.__context__ is not None:
            first = first.__context__
        line = next(iter(str(first).splitlines()), "")
        raise CaptureError(f"{type(first).__name__}: {line}{_place(first)}") from error


def _place(error: BaseException) -> str:
    """Return the place in the user's own model that an error came from, or an empty string."""
    ours = (str(Path(torch.__file__).parent), str(Path(__file__).parents[2]))
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_file()]
    own = [frame for frame in frames if not frame.filename.startswith(ours)]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""


@contextmanager
def _restoring(engine: Engine, place: Tensor) -> Iterator[None]:
    """Restore the engine's tensors and the loader's place, at the same addresses, which a capture will record."""
    before = [(tensor, tensor.clone()) for tensor in (*engine.tensors(), place)]
    try:
        yield
    finally:
        known = {tensor.data_ptr() for tensor, _ in before}
        with torch.no_grad():
            for tensor, value in before:
                tensor.copy_(value)
            for tensor in engine.tensors():
                if tensor.data_ptr() not in known:  # moments and counters that the first step made, which start at 0
                    tensor.zero_()
