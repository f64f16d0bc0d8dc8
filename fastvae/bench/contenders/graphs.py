"""Capture of timed code in CUDA graphs, so that launches from Python are not timed. Tests replace these functions."""

import itertools
from collections.abc import Callable, Iterator
from typing import Protocol

import torch

from fastvae.train.graphs.step_graphs import STEPS

WARM_UP = 3  # calls before a capture, as torch's notes on CUDA graphs advise


class Graph(Protocol):
    """The part of :class:`torch.cuda.CUDAGraph` that is used here."""

    def replay(self) -> None: ...


def captures(device: torch.device) -> bool:
    """Return True if graphs can be captured on a device."""
    return device.type == "cuda"


def capture(warm_up: Callable[[], None], *works: Callable[[], None]) -> list[Graph]:
    """Capture each of ``works`` as a graph, on a new stream on which ``warm_up`` runs first.

    Raises RuntimeError for work that synchronizes with the device or copies from the host.
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
    """Time a replay by the device's clock, in seconds. Another replay runs before it and hides the host's launch."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    graph.replay()
    start.record()
    graph.replay()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3


class StepGraphs:
    """A training step as two graphs: one with as many steps as fastvae replays at once, and one with a single step.

    The second is for the remaining steps: launched from Python, they would be slower than the others.

    Args:
        step: takes one step, entirely on the device.
        undo: restores the state that a warm-up step changed.
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
        """Take ``count`` steps and yield after each.

        With ``timed``, take one step, and then ``timed`` steps without a replay that crosses either end of them.
        """
        for part in (count,) if timed is None else (min(1, count), min(timed, max(0, count - 1))):
            for _ in range(part // STEPS):
                self._many.replay()
                yield from itertools.repeat(None, STEPS)
            for _ in range(part % STEPS):
                self._one.replay()
                yield
