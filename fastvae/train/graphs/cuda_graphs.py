"""CUDA graphs themselves: how one is captured, and what a step inside one must not do."""

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import torch


class Graph(Protocol):
    """The interface of :class:`torch.cuda.CUDAGraph`; the tests have a stand-in."""

    def replay(self) -> None: ...

    def reset(self) -> None: ...


class Graphs(Protocol):
    """The interface of :class:`CudaGraphs`, which makes graphs; the tests have a stand-in."""

    def refusing_waits(self) -> AbstractContextManager[None]: ...

    def capture(self) -> AbstractContextManager[Graph]: ...


class CudaGraphs:
    """Makes CUDA graphs on one stream, which must be the current one meanwhile."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream

    def refusing_waits(self) -> AbstractContextManager[None]:
        """Return a context for a step that must not synchronize; one that does raises RuntimeError."""
        return refusing_waits()

    @contextmanager
    def capture(self) -> Iterator[Graph]:
        """Capture the kernels launched inside the context, and yield their graph."""
        graph = torch.cuda.CUDAGraph()
        try:
            # thread_local: other threads of the caller's program may use the device meanwhile.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                yield graph
        except Exception:
            # A failed capture leaves torch's generator waiting for its end; a copy of the generator's state does not.
            generator = torch.cuda.default_generators[self._stream.device.index]
            generator.graphsafe_set_state(generator.clone_state())
            raise


@contextmanager
def refusing_waits() -> Iterator[None]:
    """Make synchronization with a GPU raise RuntimeError inside the context, in any thread of the process."""
    before = torch.cuda.get_sync_debug_mode()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns that this mode is a prototype
            torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
