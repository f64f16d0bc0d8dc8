"""CUDA graphs of what is timed: no launch from Python is part of it. The tests put stand-ins for :func:`capture`."""

import itertools
from collections.abc import Callable, Iterator
from typing import Protocol

import torch

from fastvae.train.cuda_graph import STEPS

WARM_UP = 3  # calls before a capture, as torch's notes on CUDA graphs advise


class Graph(Protocol):
    """The part of :class:`torch.cuda.CUDAGraph` that is used."""

    def replay(self) -> None: ...


def captures(device: torch.device) -> bool:
    """Return whether graphs can be captured on a device."""
    return device.type == "cuda"


def capture(warm_up: Callable[[], None], *works: Callable[[], None]) -> list[Graph]:
    """A graph of each of ``works``, captured on a stream of its own on which ``warm_up`` ran first.

    Raises RuntimeError for work that waits for the device or copies from the host.
    """
    stream = torch.cuda.Stream()
    graphs: list[Graph] = []
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        warm_up()
        for work in works:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                work()
            graphs.append(graph)
    torch.cuda.current_stream().wait_stream(stream)
    return graphs


def seconds(graph: Graph) -> float:
    """A replay's seconds by the device's clock. One more runs before it, so that the host's launch is not counted."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    graph.replay()
    start.record()
    graph.replay()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3


class Replays:
    """A training step as two graphs: of as many steps as fastvae replays at once, and of one for those left over.

    Args:
        step: all of it on the device.
        undo: puts back what a step of the warm-up changed.

    Those left over are replayed as well: launched from Python, they would be slower than the others.
    """

    def __init__(self, step: Callable[[], None], undo: Callable[[], None] = lambda: None) -> None:
        def warm_up() -> None:
            for _ in range(WARM_UP):
                step()
                undo()

        def steps() -> None:
            for _ in range(STEPS):
                step()

        self._many, self._one = capture(warm_up, steps, step)

    def take(self, count: int, timed: int | None) -> Iterator[None]:
        """Take so many steps; yields once for each.

        No replay crosses an end of what is timed: of a slice, the first step and then ``timed`` ones.
        """
        for part in (count,) if timed is None else (min(1, count), min(timed, max(0, count - 1))):
            for _ in range(part // STEPS):
                self._many.replay()
                yield from itertools.repeat(None, STEPS)
            for _ in range(part % STEPS):
                self._one.replay()
                yield
