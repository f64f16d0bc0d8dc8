"""Device time of a call: replays of one CUDA graph, over copies of its inputs that no cache holds."""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from fastvae.bench.contenders import graphs

ROTATED = 10**9  # bytes of inputs in rotation, many times an L2 cache
MOST_SETS = 256  # of inputs so small that the launches decide
REPLAYS, WARM_UP = 20, 3
HERE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
Call = Callable[[int], object]  # on the inputs of a set, by its number; returns all that it computes


def rotation(size: int) -> int:
    """How many sets of inputs of ``size`` bytes take turns."""
    return max(1, min(MOST_SETS, -(-ROTATED // max(size, 1))))


class Calls:
    """``run(*inputs)``, for inputs and copies of them: ``calls(at)`` runs on copy ``at``, and 0 is the original."""

    def __init__(self, run: Callable[..., object], *inputs: object) -> None:
        self._run, self._sets = run, [inputs]
        self.bytes = sum(leaf.nbytes for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor))

    def __call__(self, at: int = 0) -> object:
        return self._run(*self._sets[at])

    def rotate(self) -> int:
        """Make the copies, and tell how many sets there are."""
        sets = rotation(self.bytes)
        self._sets += [tree_map_only(Tensor, _copy, self._sets[0]) for _ in range(sets - len(self._sets))]
        return sets


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_(tensor.requires_grad)


class Replayed:
    """The calls on all sets as one graph. Each set's results have memory of their own, as its inputs have.

    ``seconds`` is a clock: the sum over replays of the device's seconds a call.

    Raises RuntimeError for a call that cannot be captured.
    """

    def __init__(self, call: Call, sets: int) -> None:
        self._sets, self._elapsed = sets, 0.0
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
    """Seconds of a call by the device's clock, the median of replays over ``sets`` sets of inputs.

    Where there is no GPU, by the wall clock, so that a dry run goes through. Raises RuntimeError for a call that
    cannot be captured.
    """
    if not graphs.captures(HERE):
        return wall_seconds(call, sets)
    replayed, times = Replayed(call, sets), []
    for _ in range(WARM_UP + REPLAYS):
        before = replayed.seconds()
        replayed.replay()
        times.append(replayed.seconds() - before)
    return statistics.median(times[WARM_UP:])


def wait() -> None:
    """For all that the device has been given."""
    if HERE.type == "cuda":
        torch.cuda.synchronize()


def wall_seconds(call: Call, sets: int) -> float:
    """Seconds of a call as a plain loop has it: Python, launches, and one wait at the end. The median of 5 loops."""

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
