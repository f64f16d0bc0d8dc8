"""``--profile``: a trace of some steps in mid-run, and one line about where a step's time goes.

Neither disturbs the other: the steps that are timed come before those that are traced, as tracing slows a step down.
On a GPU the times are those of its own queue, read when the run has ended: only the tracing itself waits for it.
"""

import os
import statistics
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from fastvae.data import Batch, Loader
from fastvae.train.checkpoint.write_errors import writing
from fastvae.train.distributed.world import World
from fastvae.train.loop import Loop
from fastvae.utils.terminal import Terminal

from .roofline import TYPES, Mark, count_flops, fastest_product

FILE = "fastvae.pt.trace.json.gz"  # TensorBoard's profile plugin looks for names that end so
# Steps of this process, from 0. By then memory is reserved, products have their plans, and steps are traced.
TIMED, TRACED = range(8, 18), range(20, 30)
_WARM_UP = 2  # of the profiler, thrown away

Part = Literal["data", "step", "communication"]


@contextmanager
def profiled(loop: Loop) -> Iterator[None]:
    """Profile the run of the main process inside, if its settings ask for it, and tell at its end what was seen."""
    if not loop.config.profile or loop.folder is None:
        yield
        return
    profiling = Profiling(loop.world.device, loop.folder.path / FILE)
    loop.batches, loop.around = profiling.batches(loop.loader), profiling.step
    loop.engine.world = profiling.world(loop.world)
    try:
        yield
    finally:
        profiling.stop()
    _tell(profiling, loop, loop.console)


class Profiling:
    """Watches the steps of one process.

    Args:
        device: of the steps.
        file: where the trace goes. One that an earlier process left there is overwritten, or left if this one ends
            before ``TRACED``.
    """

    def __init__(self, device: torch.device, file: Path) -> None:
        self.steps = 0
        self.traced = 0
        self._is_in_step = False
        self._device, self._file = device, file
        self._spans: list[tuple[int, Part, Mark, Mark]] = []
        self._taken: dict[int, tuple[int, int]] = {}  # by the step it began at: steps and images
        if device.type == "cpu":  # where the profiler logs as an error that it has found no GPU
            os.environ.setdefault("KINETO_LOG_LEVEL", "6")
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
        wait = TRACED.start - _WARM_UP
        self._profiler = profile(
            activities=activities,
            schedule=schedule(wait=wait, warmup=_WARM_UP, active=len(TRACED), repeat=1),
            on_trace_ready=self._write,
        )
        self._profiler.start()

    def batches(self, loader: Loader) -> Iterable[Batch]:
        """The loader's batches; fetching one is the part ``data``."""
        return _Batches(loader, self)

    @contextmanager
    def step(self, steps: int, images: int) -> Iterator[None]:
        """The part ``step``: one of so many images over all processes, or several in one replay, which are counted."""
        self._is_in_step = True
        with self.part("step"):
            yield
        self._is_in_step = False
        if self.steps in TIMED:
            self._taken[self.steps] = (steps, images)
        for _ in range(steps):
            self.steps += 1
            if self.steps <= TRACED.stop:
                self._profiler.step()

    def world(self, world: World) -> World:
        """The same world, whose communication is a part where it is a step's."""
        return _World(**vars(world), profiling=self)

    @contextmanager
    def part(self, name: Part) -> Iterator[None]:
        """Time what is done inside, or name it in the trace, or neither, by the step that the run is at."""
        if name == "communication" and not self._is_in_step:  # an evaluation's
            yield
        elif self.steps in TIMED:
            started = Mark(self._device)
            yield
            self._spans.append((self.steps, name, started, Mark(self._device)))
        elif self.steps in TRACED:
            with record_function(name):
                yield
        else:
            yield

    def stop(self) -> None:
        """End the tracing; a run that ends in the middle of ``TRACED`` has the steps up to there."""
        self._profiler.stop()

    def _write(self, profiler: "profile") -> None:
        self.traced = self.steps - TRACED.start
        if self.traced:
            # It opens its file by name, and through a link: in a folder that nobody else knows, it finds none.
            with writing(self._file), TemporaryDirectory(dir=self._file.parent, prefix=".trace-") as folder:
                profiler.export_chrome_trace(str(Path(folder) / FILE))
                os.replace(Path(folder) / FILE, self._file)

    def times(self) -> "Times":
        """Of the timed steps that have the most images: full batches, or replays. Waits for the device."""
        steps, images = most = max(self._taken.values(), key=lambda taken: taken[1])
        full = {
            step: {"data": 0.0, "step": 0.0, "communication": 0.0}
            for step, taken in self._taken.items()
            if taken == most
        }
        for step, name, started, ended in self._spans:
            if step in full:
                full[step][name] += ended.seconds_since(started) / steps
        data, whole, communication = (
            statistics.median(parts[name] for parts in full.values()) for name in ("data", "step", "communication")
        )
        return Times(images // steps, data, max(0.0, whole - communication), communication, replayed=steps > 1)


@dataclass(frozen=True)
class Times:
    """The global batch of a step in images, and the seconds of its parts, each the median over some steps.

    Steps that are replayed as one graph have but one part, ``step``, with data and communication in it.

    >>> times = Times(images=100, data=0.001, step=0.0075, communication=0.0015)
    >>> print(times)
    a step of 10.000 ms is data 10.0 %, step 75.0 %, communication 15.0 %
    >>> round(times.rate)
    10000
    """

    images: int
    data: float
    step: float
    communication: float
    replayed: bool = False

    @property
    def seconds(self) -> float:
        return self.data + self.step + self.communication

    @property
    def rate(self) -> float:
        """Images per second, over all processes."""
        return self.images / self.seconds

    def __str__(self) -> str:
        if self.replayed:
            return f"a step of {1e3 * self.seconds:.3f} ms is replayed, with data and communication in it"
        data, communication = (round(100 * part / self.seconds, 1) for part in (self.data, self.communication))
        step = 100 - data - communication  # rounded, they still make 100 %
        return (
            f"a step of {1e3 * self.seconds:.3f} ms is "
            f"data {data:.1f} %, step {step:.1f} %, communication {communication:.1f} %"
        )


class _Batches:
    def __init__(self, loader: Loader, profiling: Profiling) -> None:
        self._loader, self._profiling = loader, profiling

    def __iter__(self) -> Iterator[Batch]:
        batches = iter(self._loader)
        while True:
            with self._profiling.part("data"):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch


@dataclass(frozen=True)
class _World(World):
    profiling: Profiling = field(kw_only=True)

    def communicating(self) -> AbstractContextManager[None]:
        return self.profiling.part("communication")


def _tell(profiling: Profiling, loop: Loop, console: Terminal) -> None:
    if profiling.traced == 0:
        console.print(
            f"profile: no trace, as this process took {profiling.steps} steps and the first {TRACED.start} warm up: "
            "train for longer"
        )
        return
    precision = loop.config.precision
    flops = count_flops(loop.engine.model, loop.config, loop.loader.fetch(0).images)
    ceiling = fastest_product(TYPES[precision], loop.world.device)
    times = profiling.times()
    share = flops / times.seconds / ceiling.rate
    console.print(
        f"profile: {times.rate:,.0f} images/s at {100 * share:.1f} % of the FLOP ceiling "
        f"({flops / 1e9:.3g} GFLOP a step; {ceiling.rate / 1e12:.3g} TFLOP/s in {precision} products of "
        f"{ceiling.side} x {ceiling.side}); {times}; trace of {profiling.traced} steps in {FILE}"
    )
