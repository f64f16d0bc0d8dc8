"""The race: contenders train in turns, and each gets a result."""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from fastvae.bench.contenders.products import Products
from fastvae.bench.contenders.workload import Contender, Entry, Kind, Workload
from fastvae.train.config import TrainConfig
from fastvae.train.step.torch_flags import torch_flags

from .warm_up import page_in_constants

TOLERANCE = 0.02  # relative, of the test loss: if it differs by more, contenders do not train the same model


@dataclass
class Result:
    """Measurements of one contender.

    Attributes:
        seconds: seconds per step, one value for each timed epoch or slice of each seed.
        start_up: seconds to build the contender and run its first lap, beyond those of a usual lap: compiling,
            autotuning.
        test_losses: final negative ELBO in nats per sample, one for each seed; empty for a floor.
        products: the measurements from which a floor was chosen, for the first seed; None for others.
    """

    name: str
    kind: Kind
    precision: str = ""
    note: str = ""
    seconds: list[float] = field(default_factory=list)
    start_up: float = 0.0
    test_losses: list[float] = field(default_factory=list)
    products: Products | None = None

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
    workload: Workload, entries: Sequence[Entry], laps: int, seeds: int, track: Callable[[range], Iterable[int]] = iter
) -> list[Result]:
    """Run ``laps`` timed epochs or slices of each contender for each seed, after one to warm up.

    All contenders run one lap, then all run the next: if the machine slows down, it slows all of them. ``track`` shows
    progress. torch's flags are those of ``fastvae train`` by default: no TF32, not even in convolutions.
    """
    page_in_constants()
    results = [Result(entry.name, entry.kind) for entry in entries]
    wait: Callable[[], None] = torch.cuda.synchronize if workload.device.type == "cuda" else lambda: None
    # Contenders share code that torch.compile compiles. Beyond its limit it would silently run eagerly.
    limits = torch._dynamo.config.patch(recompile_limit=1000, accumulated_recompile_limit=10_000)
    with torch_flags(TrainConfig(), workload.device), limits:
        racers: list[Contender] = []
        for turn in track(range(seeds * (laps + 1))):
            seed, lap = divmod(turn, laps + 1)
            if lap == 0:
                racers.clear()  # frees their memory before the next ones are built
                racers.extend(_make_all(workload, entries, results, seed))
            for racer, result in zip(racers, results, strict=True):
                started = time.perf_counter()
                seconds = racer.lap(lap, workload.steps, wait)
                if lap:
                    result.seconds.append(seconds)
                elif seed == 0:
                    result.precision = racer.precision
                    result.note = racer.note
                    result.products = racer.products
                    result.start_up += time.perf_counter() - started
                if lap == laps and racer.model is not None:
                    result.test_losses.append(workload.test_loss(racer.model))
    steps = workload.epoch_steps if workload.steps is None else workload.steps
    for result in results:
        result.start_up = max(0.0, result.start_up - steps * result.median)
    return results


def _make_all(
    workload: Workload, entries: Sequence[Entry], results: Sequence[Result], seed: int
) -> Iterator[Contender]:
    for entry, result in zip(entries, results, strict=True):
        started = time.perf_counter()
        yield entry.make(workload, seed)
        if seed == 0:
            result.start_up += time.perf_counter() - started


def disagreements(results: Sequence[Result]) -> list[str]:
    """List the contenders whose test loss differs too much from the first one's, which makes the comparison void."""
    trained = [result for result in results if result.test_losses]
    if not trained:
        return []
    first = trained[0]
    return [
        f"{result.name} ends at {result.test_loss:.2f} nats, {first.name} at {first.test_loss:.2f}"
        for result in trained[1:]
        if not abs(result.test_loss - first.test_loss) <= TOLERANCE * abs(first.test_loss)
    ]
