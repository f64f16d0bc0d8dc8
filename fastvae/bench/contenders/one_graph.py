"""torch's loop with its whole step captured by hand: what a good engineer writes for a small network on a GPU."""

from collections.abc import Iterator

import torch

from fastvae.bench.contenders.workload import Task

from . import graphs
from .loops import Loop


class OneGraph(Loop):
    """The loop's step, gather and optimiser included, as a CUDA graph; several in one replay, as fastvae has them.

    A counter on the device finds the batches in an order drawn for each epoch. The smaller last batch is not captured.
    mode: of torch.compile, without graphs of its own, inside the captured step; None captures the eager step.
    """

    replayed = True

    def __init__(self, task: Task, seed: int, precision: str, mode: str | None) -> None:
        super().__init__(task, seed, precision, mode)
        self._full = len(task.pixels) // task.batch_size
        self._order = torch.zeros(max(self._full, 1), task.batch_size, dtype=torch.int64, device=task.device)
        self._place = torch.zeros(1, dtype=torch.int64, device=task.device)
        self._total = torch.zeros((), device=task.device)
        begun = [(tensor, tensor.clone()) for tensor in self.model.state_dict().values()]

        @torch.no_grad()
        def undo() -> None:
            for tensor, value in begun:
                tensor.copy_(value)
            for state in self.optimizer.state.values():  # counts and moments, which begin at zero
                for value in state.values():
                    value.zero_()
            self._place.zero_()

        self._replays = graphs.Replays(self._next, undo)

    def epoch(self, _: int) -> Iterator[None]:
        pixels = self.task.pixels
        order = torch.randperm(len(pixels), device=self.task.device)
        end = self._full * self.task.batch_size
        self._order[: self._full] = order[:end].view(-1, self.task.batch_size)
        self._place.zero_()
        self._total.zero_()
        yield from self._replays.take(self._full, self.task.steps)
        if end < len(pixels):
            self._total += self._step(pixels.index_select(0, order[end:]))
            yield

    def _next(self) -> None:
        index = self._order.index_select(0, self._place).squeeze(0)
        self._total += self._step(self.task.pixels.index_select(0, index))
        self._place += 1
