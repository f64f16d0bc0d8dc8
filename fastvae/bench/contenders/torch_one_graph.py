"""The contender torch with a hand-captured CUDA graph: the loop of a good engineer for a small network on a GPU."""

from collections.abc import Iterator

import torch

from . import graphs
from .torch_loop import TorchLoop
from .workload import Workload


class TorchOneGraph(TorchLoop):
    """The step of :class:`TorchLoop`, with gather and optimiser, as a CUDA graph of several steps, as in fastvae.

    A counter on the device indexes the order of batches, which is drawn again for each epoch. The smaller last batch is
    not captured.

    Args:
        mode: mode of torch.compile inside the captured step, one without CUDA graphs; None captures the eager step.
    """

    replayed = True

    def __init__(self, workload: Workload, seed: int, precision: str, mode: str | None) -> None:
        super().__init__(workload, seed, precision, mode)
        self._full = len(workload.pixels) // workload.batch_size
        self._order = torch.zeros(max(self._full, 1), workload.batch_size, dtype=torch.int64, device=workload.device)
        self._place = torch.zeros(1, dtype=torch.int64, device=workload.device)
        self._total = torch.zeros((), device=workload.device)
        begun = [(tensor, tensor.clone()) for tensor in self.model.state_dict().values()]

        @torch.no_grad()
        def undo() -> None:
            for tensor, value in begun:
                tensor.copy_(value)
            for state in self.optimizer.state.values():  # step counts and moments start at zero
                for value in state.values():
                    value.zero_()
            self._place.zero_()

        self._replays = graphs.StepGraphs(self._next, undo)

    def epoch(self, _: int) -> Iterator[None]:
        pixels = self.workload.pixels
        order = torch.randperm(len(pixels), device=self.workload.device)
        end = self._full * self.workload.batch_size
        self._order[: self._full] = order[:end].view(-1, self.workload.batch_size)
        self._place.zero_()
        self._total.zero_()
        yield from self._replays.take(self._full, self.workload.steps)
        if end < len(pixels):
            self._total += self._step(pixels.index_select(0, order[end:]))
            yield

    def _next(self) -> None:
        index = self._order.index_select(0, self._place).squeeze(0)
        self._total += self._step(self.workload.pixels.index_select(0, index))
        self._place += 1
