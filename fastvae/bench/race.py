"""Contenders in turns, and what comes out."""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from fastvae.bench.contenders.workload import Contender, Entry, Kind, Task
from fastvae.train.config import TrainConfig
from fastvae.train.step.torch_flags import torch_flags

from .warm_up import page_in_constants

TOLERANCE = 0.02  # of the test loss: further apart, the contenders do not train the same thing


@dataclass
class Result:
    """What a contender did.

    seconds: of a step, one value for each timed epoch or slice of each seed.
    start_up: seconds before the first timed one beyond what it takes itself: making, compiling, choosing.
    test_losses: negative ELBO in nats a sample at the end, one for each seed; none for a floor.
    """

    name: str
    kind: Kind
    precision: str = ""
    note: str = ""
    seconds: list[float] = field(default_factory=list)
    start_up: float = 0.0
    test_losses: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        if len(self.seconds) == 1:
            return self.median, self.median
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, high

    @property
    def test_loss(self) -> float:
        return statistics.fmean(self.test_losses)


def race(
    task: Task, entries: Sequence[Entry], laps: int, seeds: int, track: Callable[[range], Iterable[int]] = iter
) -> list[Result]:
    """Run ``laps`` timed epochs or slices of each contender for each seed, after one to warm up, all in turns.

    A lap of each, then the next lap of each: a machine that slows down slows all alike. ``track`` shows progress.
    All have torch's switches as ``fastvae train`` has them by default: no TF32, in convolutions neither.
    """
    page_in_constants()
    results = [Result(entry.name, entry.kind) for entry in entries]
    wait: Callable[[], None] = torch.cuda.synchronize if task.device.type == "cuda" else lambda: None
    # Contenders share the code that torch.compile compiles. Past the limit it would run eagerly, and not say so.
    limits = torch._dynamo.config.patch(recompile_limit=1000, accumulated_recompile_limit=10_000)
    with torch_flags(TrainConfig(), task.device), limits:
        racers: list[Contender] = []
        for turn in track(range(seeds * (laps + 1))):
            seed, lap = divmod(turn, laps + 1)
            if lap == 0:
                racers.clear()  # before the next ones take their memory
                racers.extend(_made(task, entries, results, seed))
            for racer, result in zip(racers, results, strict=True):
                started = time.perf_counter()
                seconds = racer.lap(lap, task.steps, wait)
                if lap:
                    result.seconds.append(seconds)
                elif seed == 0:
                    result.precision, result.note = racer.precision, racer.note
                    result.start_up += time.perf_counter() - started
                if lap == laps and racer.model is not None:
                    result.test_losses.append(task.test_loss(racer.model))
    steps = task.epoch_steps if task.steps is None else task.steps
    for result in results:
        result.start_up = max(0.0, result.start_up - steps * result.median)
    return results


def _made(task: Task, entries: Sequence[Entry], results: Sequence[Result], seed: int) -> Iterator[Contender]:
    for entry, result in zip(entries, results, strict=True):
        started = time.perf_counter()
        yield entry.make(task, seed)
        if seed == 0:
            result.start_up += time.perf_counter() - started


def disagreements(results: Sequence[Result]) -> list[str]:
    """Whose test loss is further than the tolerance from the first one's: then the comparison is void."""
    trained = [result for result in results if result.test_losses]
    if not trained:
        return []
    first = trained[0]
    return [
        f"{result.name} ends at {result.test_loss:.2f} nats, {first.name} at {first.test_loss:.2f}"
        for result in trained[1:]
        if not abs(result.test_loss - first.test_loss) <= TOLERANCE * abs(first.test_loss)
    ]
