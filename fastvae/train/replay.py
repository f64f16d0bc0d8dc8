"""Several training steps as one CUDA graph: no launches from the host, and nothing that waits for it.

All that a step reads and writes stays where it is: batches are found by a counter on the device, weights, moments,
noise key, sums and loss scale are changed in place. Smaller batches at the end of an epoch are taken one by one.
"""

from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor

from ..data import Batch, OrderedLoader, ResidentLoader
from .engine import Engine
from .optimizer import takes_device_rate

STEPS = 10  # a replay; the host looks at signals, logs and checkpoints between replays
_WARM_UP = 3  # as torch's notes on CUDA graphs advise: lazy initialisation, library handles, compilation


# Their state does not begin at zero, which is what the warm-up leaves of the state that it makes.
_BEGIN_ELSEWHERE = (torch.optim.NAdam, torch.optim.Rprop, torch.optim.ASGD)


def can_replay(engine: Engine, loader: ResidentLoader) -> bool:
    """Whether steps can be captured: on a GPU, by an optimiser that reads nothing on the host, of whole weights.

    An epoch must have as many full batches as a replay takes. Over several processes the sum of the gradients is
    captured too, which NCCL allows.
    """
    if engine.has_shards or loader.augment is not None:  # whose draws are of an epoch that the host knows
        return False
    if loader.count // loader.batch_size < STEPS:
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


class Replay:
    """``STEPS`` steps of an engine over the batches of a loader, captured once.

    Args:
        engine: with an optimiser that can be captured.
        loader: resident on the same device; wherever it is in an epoch of at least one full batch.
        graph: an empty graph, and the context in which calls are captured into it.
    """

    def __init__(self, engine: Engine, loader: Source, graph: Graph, capture: AbstractContextManager[Any]) -> None:
        self._loader, self._graph = loader, graph
        place = loader.place.clone()
        with _undone(engine):
            for _ in range(_WARM_UP):
                loader.place.zero_()  # where there is a whole batch; a run may go on from the end of an epoch
                engine.train_step(loader.follow())
            loader.place.copy_(place)
        with capture:
            for _ in range(STEPS):
                engine.train_step(loader.follow())

    @classmethod
    def on_cuda(cls, engine: Engine, loader: Source) -> "Replay":
        """Warm up and capture on a stream of its own, as CUDA wants it."""
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            replay = cls(engine, loader, graph, torch.cuda.graph(graph, stream=stream))
        torch.cuda.current_stream().wait_stream(stream)
        return replay

    @classmethod
    def where_possible(cls, engine: Engine, loader: OrderedLoader) -> "Replay | None":
        """A replay on CUDA, or None where steps have to be taken one by one."""
        if isinstance(loader, ResidentLoader) and can_replay(engine, loader):
            return cls.on_cuda(engine, loader)
        return None

    def fits(self) -> bool:
        """Whether as many full batches are left in the epoch."""
        return self._loader.full_steps_left() >= STEPS

    def run(self) -> None:
        """Take ``STEPS`` steps."""
        self._graph.replay()
        self._loader.skip(STEPS)


class _undone:  # noqa: N801 -- reads as what it is: with _undone(engine)
    """Leave the engine's tensors as they were found, at the same addresses, which a capture will know."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __enter__(self) -> None:
        self._before = [(tensor, tensor.clone()) for tensor in self._engine.tensors()]

    def __exit__(self, *_: object) -> None:
        known = {tensor.data_ptr() for tensor, _ in self._before}
        with torch.no_grad():
            for tensor, value in self._before:
                tensor.copy_(value)
            for tensor in self._engine.tensors():
                if tensor.data_ptr() not in known:  # made by the first step: moments and counters, which begin at zero
                    tensor.zero_()
