"""Training steps as CUDA graphs: no launches from the host, and nothing that waits for it.

All that a step reads and writes stays where it is: batches are found by a counter on the device, weights, moments,
noise key, sums and loss scale are changed in place. Smaller batches at the end of an epoch are taken one by one.
"""

import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from fastvae.data import Batch, Loader, ResidentLoader

from .engine import Engine
from .optim.build import takes_device_rate

STEPS = 10  # a replay; the host looks at signals, logs and checkpoints between replays
_WARM_UP = 3  # as torch's notes on CUDA graphs advise: lazy initialisation, library handles, compilation


# Their state does not begin at zero, which is what the warm-up leaves of the state that it makes.
_BEGIN_ELSEWHERE = (torch.optim.NAdam, torch.optim.Rprop, torch.optim.ASGD)


def can_replay(engine: Engine, loader: ResidentLoader) -> bool:
    """Whether steps can be captured: on a GPU, by an optimiser that reads nothing on the host, of whole weights.

    An epoch must have a full batch. Over several processes the sum of the gradients is
    captured too, which NCCL allows.
    """
    if engine.has_shards or loader.augment is not None:  # whose draws are of an epoch that the host knows
        return False
    if loader.count < loader.batch_size:
        return False
    optimizer = engine.optimizer
    group = optimizer.param_groups[0]
    if isinstance(optimizer, _BEGIN_ELSEWHERE) or group.get("dampening"):  # not applied to a momentum that begins
        return False
    return takes_device_rate(optimizer) and (bool(group.get("fused")) or not engine.scaler.is_enabled())


class Source(Protocol):
    """What a replay asks of a :class:`fastvae.data.ResidentLoader`."""

    batch_size: int
    place: Tensor

    def follow(self) -> Batch: ...

    def full_steps_left(self) -> int: ...

    def skip(self, steps: int) -> None: ...


class Graph(Protocol):
    """What :class:`torch.cuda.CUDAGraph` does; the tests put a list of calls in its place."""

    def replay(self) -> None: ...

    def reset(self) -> None: ...


class Graphs(Protocol):
    """How graphs are made: by :class:`CudaGraphs`, or by the tests' stand-in."""

    def refusing_waits(self) -> AbstractContextManager[None]: ...

    def capture(self) -> AbstractContextManager[Graph]: ...


class CaptureError(Exception):
    """Why a step cannot be captured, in one line: it waits for the device, copies from the host, or the like."""


class Replay:
    """Steps of an engine over the batches of a loader, captured once: graphs of many steps, and of one for the rest.

    Args:
        engine: with an optimiser that can be captured.
        loader: resident on the same device; wherever it is in an epoch of at least one full batch.
        graphs: makes them.
        sizes: steps of each graph, the largest first.

    Raises:
        CaptureError: a step waits for the device, or cannot be captured for another reason. The engine's tensors
            are as they were.
    """

    def __init__(self, engine: Engine, loader: Source, graphs: Graphs, sizes: Sequence[int] = (STEPS, 1)) -> None:
        self._loader, self._graphs = loader, dict[int, Graph]()
        with _undone(engine, loader.place):
            for number in range(_WARM_UP):
                loader.place.zero_()  # where there is a whole batch; a run may go on from the end of an epoch
                # A process that raises here leaves the others in their sum: with several, the capture finds out.
                if number < _WARM_UP - 1 or engine.world.size > 1:
                    engine.train_step(loader.follow())
                else:  # all that is lazy is done: what waits now would wait in each step
                    with _told(), graphs.refusing_waits():
                        engine.train_step(loader.follow())
        try:
            for steps in sizes:
                with _told(), graphs.capture() as graph:
                    for _ in range(steps):
                        engine.train_step(loader.follow())
                self._graphs[steps] = graph
        except CaptureError:
            self.release()
            raise

    @classmethod
    def on_cuda(cls, engine: Engine, loader: Source, sizes: Sequence[int] = (STEPS, 1)) -> "Replay":
        """Warm up and capture on a stream of its own, as CUDA wants it. Raises :class:`CaptureError`."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(stream):
                return cls(engine, loader, CudaGraphs(stream), sizes)
        finally:
            torch.cuda.current_stream().wait_stream(stream)

    @classmethod
    def where_possible(cls, engine: Engine, loader: Loader, tell: Callable[[str], None]) -> "Replay | None":
        """A replay on CUDA, or None where steps have to be taken one by one; ``tell`` is told why a step cannot be."""
        if not isinstance(loader, ResidentLoader) or not can_replay(engine, loader):
            return None
        full = loader.count // loader.batch_size
        try:
            return cls.on_cuda(engine, loader, [steps for steps in (STEPS, 1) if steps <= full])
        except CaptureError as reason:
            tell(f"steps are launched one by one, as they cannot be captured: {reason}")
            return None

    def fitting(self, limit: int) -> int:
        """How many steps the next replay takes: as many as full batches are left in the epoch, and ``limit``, allow."""
        left = min(limit, self._loader.full_steps_left())
        return next((steps for steps in self._graphs if steps <= left), 0)

    def run(self, steps: int = STEPS) -> None:
        """Take ``steps`` steps, which :meth:`fitting` gave."""
        self._graphs[steps].replay()
        self._loader.skip(steps)

    def release(self) -> None:
        """Let the graphs go. NCCL waits at its end for all that hold its kernels, even those that an error keeps."""
        if self._loader.place.is_cuda:
            with suppress(RuntimeError):  # of a device that has failed, which the run tells
                torch.cuda.synchronize()
        for graph in self._graphs.values():
            graph.reset()
        self._graphs.clear()


class CudaGraphs:
    """Graphs on one stream, which is the current one while they are made."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream

    def refusing_waits(self) -> AbstractContextManager[None]:
        """Return a context for a step that must not wait for the device; a wait raises RuntimeError."""
        return refusing_waits()

    @contextmanager
    def capture(self) -> Iterator[Graph]:
        """Capture the calls inside the context; give their graph."""
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads of the caller's program may use the device meanwhile.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                yield graph
        except Exception:
            # A capture that failed has left torch's generator waiting for its end: a copy of its state does not wait.
            generator = torch.cuda.default_generators[self._stream.device.index]
            generator.graphsafe_set_state(generator.clone_state())
            raise


@contextmanager
def refusing_waits() -> Iterator[None]:
    """Refuse waits for a GPU inside the context: a wait raises RuntimeError, in any thread of the process."""
    before = torch.cuda.get_sync_debug_mode()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says, once it is set, that this mode is a prototype
            torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@contextmanager
def _told() -> Iterator[None]:
    """Turn what a step raises into CaptureError. Of errors on errors, the first tells most."""
    try:
        yield
    except Exception as error:
        first: BaseException = error
        while first.__context__ is not None:
            first = first.__context__
        line = next(iter(str(first).splitlines()), "")
        raise CaptureError(f"{type(first).__name__}: {line}{_place(first)}") from error


def _place(error: BaseException) -> str:
    """Where in somebody's model an error came from, if it was there."""
    ours = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_file()]
    own = [frame for frame in frames if not frame.filename.startswith(ours)]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""


class _undone:  # noqa: N801 -- reads as what it is: with _undone(engine)
    """Leave the engine's tensors and the place as they were found, at the same addresses, which a capture will know."""

    def __init__(self, engine: Engine, place: Tensor) -> None:
        self._engine, self._place = engine, place

    def __enter__(self) -> None:
        self._before = [(tensor, tensor.clone()) for tensor in (*self._engine.tensors(), self._place)]

    def __exit__(self, *_: object) -> None:
        known = {tensor.data_ptr() for tensor, _ in self._before}
        with torch.no_grad():
            for tensor, value in self._before:
                tensor.copy_(value)
            for tensor in self._engine.tensors():
                if tensor.data_ptr() not in known:  # made by the first step: moments and counters, which begin at zero
                    tensor.zero_()
