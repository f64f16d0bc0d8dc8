"""``--profile``: a trace of some steps in mid-run, and one line about where a step's time goes.

The timed steps come before the traced ones, as tracing slows a step down. On a GPU the times are taken by events in its
queue, which are read when the run has ended: only the tracing itself synchronizes.
"""

import os
import statistics
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from fastvae.data import Batch, Loader
from fastvae.train.checkpoint.write_errors import writing
from fastvae.train.loop import Loop
from fastvae.train.step.hooks import Hooks
from fastvae.utils.precision import DTYPES

from .roofline import Mark, count_flops, fastest_matmul

FILE = "fastvae.pt.trace.json.gz"  # TensorBoard's profile plugin looks for names that end so
# Steps of this process, from 0. By then memory is reserved, matmuls have chosen their kernels, and steps are traced.
TIMED = range(8, 18)
TRACED = range(20, 30)
_WARM_UP = 2  # steps that the profiler records and drops

Part = Literal["data", "step", "communication"]


@contextmanager
def profiled(profiling: "Profiling | None", loop: Loop) -> Iterator[None]:
    """Profile the loop inside the context, which calls the hooks ``profiling``, and print the results at its end."""
    if profiling is None:
        yield
        return
    profiling.start()
    try:
        yield
    finally:
        profiling.stop()
    _print(profiling, loop)


class Profiling(Hooks):
    """Times and traces the steps of one process.

    Args:
        device: of the steps.
        file: of the trace. It overwrites that of an earlier process, unless this process ends before ``TRACED``.
    """

    def __init__(self, device: torch.device, file: Path) -> None:
        self.steps = 0
        self.traced = 0
        self._is_in_step = False
        self._device = device
        self._file = file
        self._spans: list[tuple[int, Part, Mark, Mark]] = []
        self._taken: dict[int, tuple[int, int]] = {}  # steps and images, by the first step
        if device.type == "cpu":  # or the profiler logs an error that it has found no GPU
            os.environ.setdefault("KINETO_LOG_LEVEL", "6")
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
        wait = TRACED.start - _WARM_UP
        self._profiler = profile(
            activities=activities,
            schedule=schedule(wait=wait, warmup=_WARM_UP, active=len(TRACED), repeat=1),
            on_trace_ready=self._write,
        )

    def start(self) -> None:
        """Start the profiler, which traces nothing before ``TRACED``."""
        self._profiler.start()

    def stop(self) -> None:
        """Stop the profiler; a run that ends within ``TRACED`` has traced the steps up to its end."""
        self._profiler.stop()

    def batches(self, loader: Loader) -> Iterator[Batch]:
        """Yield the loader's batches; fetching one is the part ``data``."""
        batches = iter(loader)
        while True:
            with self._part("data"):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    @contextmanager
    def around_step(self, steps: int, images: int) -> Iterator[None]:
        """Record the part ``step``: one step, or several in one CUDA graph, of ``images`` images on all ranks."""
        self._is_in_step = True
        with self._part("step"):
            yield
        self._is_in_step = False
        if self.steps in TIMED:
            self._taken[self.steps] = (steps, images)
        for _ in range(steps):
            self.steps += 1
            if self.steps <= TRACED.stop:
                self._profiler.step()

    def communicating(self) -> AbstractContextManager[None]:
        """Record the part ``communication``, inside a step."""
        return self._part("communication") if self._is_in_step else nullcontext()

    @contextmanager
    def _part(self, name: Part) -> Iterator[None]:
        """Time a part of a step in ``TIMED``, or name it in the trace of one in ``TRACED``."""
        if self.steps in TIMED:
            started = Mark(self._device)
            yield
            self._spans.append((self.steps, name, started, Mark(self._device)))
        elif self.steps in TRACED:
            with record_function(name):
                yield
        else:
            yield

    def _write(self, profiler: "profile") -> None:
        self.traced = self.steps - TRACED.start
        if self.traced:
            # The profiler opens its file by name and follows links: a folder that nobody else knows has none.
            with writing(self._file), TemporaryDirectory(dir=self._file.parent, prefix=".trace-") as folder:
                profiler.export_chrome_trace(str(Path(folder) / FILE))
                os.replace(Path(folder) / FILE, self._file)

    def times(self) -> "Times":
        """Return the times of the timed steps with the most images: full batches, or CUDA graphs. Synchronizes."""
        most = max(self._taken.values(), key=lambda taken: taken[1])
        steps, images = most
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
    """The images of a step's global batch, and the seconds of its parts, each the median over some steps.

    Steps in a CUDA graph have one part, ``step``, which includes data and communication.

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
        """Seconds of the whole step."""
        return self.data + self.step + self.communication

    @property
    def rate(self) -> float:
        """Images per second, on all ranks."""
        return self.images / self.seconds

    def __str__(self) -> str:
        if self.replayed:
            return f"a step of {1e3 * self.seconds:.3f} ms is replayed, with data and communication in it"
        data, communication = (round(100 * part / self.seconds, 1) for part in (self.data, self.communication))
        step = 100 - data - communication  # so that the rounded parts add up to 100 %
        return (
            f"a step of {1e3 * self.seconds:.3f} ms is "
            f"data {data:.1f} %, step {step:.1f} %, communication {communication:.1f} %"
        )


def _print(profiling: Profiling, loop: Loop) -> None:
    if profiling.traced == 0:
        loop.console.print(
            f"profile: no trace, as this process took {profiling.steps} steps and the first {TRACED.start} warm up: "
            "train for longer"
        )
        return
    precision = loop.config.precision
    flops = count_flops(loop.engine.model, loop.config, loop.loader.fetch(0).images)
    ceiling = fastest_matmul(DTYPES[precision], loop.world.device)
    times = profiling.times()
    share = flops / times.seconds / ceiling.rate
    doubt = ", in a slower moment, or convolutions saved some of the FLOPs counted" if share > 1 else ""
    loop.console.print(
        f"profile: {times.rate:,.0f} images/s at {100 * share:.1f} % of the FLOP ceiling "
        f"({flops / 1e9:.3g} GFLOP a step; {ceiling.rate / 1e12:.3g} TFLOP/s in {precision} products of "
        f"{ceiling.side} x {ceiling.side}{doubt}); {times}; trace of {profiling.traced} steps in {FILE}"
    )
