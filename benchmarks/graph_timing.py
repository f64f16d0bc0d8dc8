"""Device time of a call: replays of a CUDA graph over many copies of its inputs, too large for any cache."""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from fastvae.bench.contenders import graphs

ROTATED = 10**9  # bytes of inputs in rotation, many times an L2 cache
MOST_SETS = 256  # limit for inputs so small that launches dominate
REPLAYS = 20
WARM_UP = 3
HERE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
Call = Callable[[int], object]  # maps the number of a set of inputs to everything computed from it


def rotation(size: int) -> int:
    """Return the number of sets of inputs, of ``size`` bytes each, that take turns."""
    return max(1, min(MOST_SETS, -(-ROTATED // max(size, 1))))


class Calls:
    """Calls of ``run`` on inputs and copies of them: ``calls(at)`` uses copy ``at``, and 0 is the original."""

    def __init__(self, run: Callable[..., object], *inputs: object) -> None:
        self._run = run
        self._sets = [inputs]
        self.bytes = sum(leaf.nbytes for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor))

    def __call__(self, at: int = 0) -> object:
        return self._run(*self._sets[at])

    def rotate(self) -> int:
        """Make the copies and return the number of sets."""
        sets = rotation(self.bytes)
        self._sets += [tree_map_only(Tensor, _copy, self._sets[0]) for _ in range(sets - len(self._sets))]
        return sets


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_(tensor.requires_grad)


class Replayed:
    """Calls on all sets as one CUDA graph. The results of each set have their own memory, as its inputs do.

    ``seconds`` acts as a clock: it sums, over replays, the device's seconds per call.

    Raises RuntimeError for a call that cannot be captured.
    """

    def __init__(self, call: Call, sets: int) -> None:
        self._sets = sets
        self._elapsed = 0.0
        self._results: list[object] = [None] * sets

        def warm_up() -> None:
            for at in range(graphs.WARM_UP):
                call(at % sets)

        def work() -> None:
            for at in range(sets):
                self._results[at] = call(at)

        (self._graph,) = graphs.capture(warm_up, work)

    def replay(self) -> None:
        self._elapsed += graphs.seconds(self._graph) / self._sets

    def seconds(self) -> float:
        return self._elapsed


def device_seconds(call: Call, sets: int) -> float:
    """Return the seconds per call by the device's clock, the median of replays over ``sets`` sets of inputs.

    Without a GPU it uses the wall clock, for dry runs. Raises RuntimeError for a call that cannot be captured.
    """
    if not graphs.captures(HERE):
        return wall_seconds(call, sets)
    replayed = Replayed(call, sets)
    times = []
    for _ in range(WARM_UP + REPLAYS):
        before = replayed.seconds()
        replayed.replay()
        times.append(replayed.seconds() - before)
    return statistics.median(times[WARM_UP:])


def wait() -> None:
    """Synchronize with the device."""
    if HERE.type == "cuda":
        torch.cuda.synchronize()


def wall_seconds(call: Call, sets: int) -> float:
    """Return the seconds per call of a plain loop, with Python, launches and a final wait: the median of 5 loops."""

    def loop(count: int) -> float:
        wait()
        begun = time.perf_counter()
        for at in range(count):
            call(at % sets)
        wait()
        return (time.perf_counter() - begun) / count

    loop(5)  # compiles
    count = max(5, min(100, int(0.1 / loop(5))))
    return statistics.median(loop(count) for _ in range(5))
