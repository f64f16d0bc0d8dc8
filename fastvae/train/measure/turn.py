"""A turn of a trial: some steps of an engine over one batch."""

import torch

from fastvae.data import Batch
from fastvae.train.engine import Engine
from fastvae.train.graphs.step_graphs import STEPS, CaptureError, StepGraphs

_STEPS = 5  # in a turn


class SameBatch:
    """One batch, again and again: a :class:`fastvae.train.graphs.step_graphs.BatchSource`."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self.batch_size = batch.rows
        self.place = torch.zeros((), dtype=torch.int64, device=batch.images.device)

    def follow(self) -> Batch:
        """Return the batch."""
        return self._batch

    def full_steps_left(self) -> int:
        """Return the steps of a graph: the batch does not run out."""
        return STEPS

    def skip(self, steps: int) -> None:
        """Do nothing: the next batch is the same."""


class Turn:
    """Some steps of an engine over one batch, in one CUDA graph if the run will take them so."""

    def __init__(self, engine: Engine, batch: Batch, *, in_graph: bool) -> None:
        self._engine = engine
        self._batch = batch
        self._in_graph = in_graph
        self._graphs: StepGraphs | None = None
        self.steps = STEPS if in_graph else _STEPS

    def __call__(self) -> None:
        if self._in_graph and self._graphs is None:  # in the turn that warms up
            try:
                self._graphs = StepGraphs.on_cuda(self._engine, SameBatch(self._batch), [STEPS])
            except CaptureError:  # the run will find and report the same
                self._in_graph = False
        if self._graphs is not None:
            self._graphs.run(STEPS)
            return
        for _ in range(self.steps):
            self._engine.train_step(self._batch)

    def release(self) -> None:
        """Release the CUDA graphs."""
        if self._graphs is not None:
            self._graphs.release()
