"""The fastest loops that a good engineer writes with torch alone."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastvae.bench.contenders.workload import Contender, Task, minimised
from fastvae.models import VAE, Preset
from fastvae.utils.precision import autocast_dtype


def fast_optimizer(recipe: Preset, model: nn.Module, *, capturable: bool = False) -> torch.optim.Optimizer:
    """The recipe's optimiser in torch's fastest form. ``capturable``: with its count of steps on the GPU."""
    options: dict[str, Any] = {**recipe.optimizer_options, "capturable": capturable}
    if recipe.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), lr=recipe.lr, fused=True, **options)
    return torch.optim.RMSprop(model.parameters(), lr=recipe.lr, foreach=True, **options)


class Loop(Contender):
    """Data as one tensor on the device, logits, a fused optimiser, no gradients kept, no look at the loss.

    precision: "fp32", or "bf16" for autocast. mode: of torch.compile, which compiles forward, loss and backward; None
    runs eagerly. replayed: whether a step is captured, which the optimiser has to know on a GPU.
    """

    model: VAE
    replayed = False

    def __init__(self, task: Task, seed: int, precision: str, mode: str | None) -> None:
        self.task, self.precision = task, precision
        self.model = task.model(seed)
        self.encoder, self.decoder = task.layers(self.model)
        self.optimizer = fast_optimizer(
            task.recipe, self.model, capturable=self.replayed and task.device.type == "cuda"
        )
        self._loss: Callable[[Tensor], Tensor] = self._plain_loss
        if mode is not None:
            # dynamic=False: the smaller batch at the end of an epoch gets code of its own, not slower code for both.
            self._loss = torch.compile(self._plain_loss, mode=mode, dynamic=False, fullgraph=True)

    def epoch(self, _: int) -> Iterator[None]:
        pixels, device = self.task.pixels, self.task.device
        total = torch.zeros((), device=device)
        for index in torch.randperm(len(pixels), device=device).split(self.task.batch_size):
            total += self._step(pixels.index_select(0, index))
            yield

    def _step(self, x: Tensor) -> Tensor:
        """Train on a batch; returns its loss."""
        loss = self._loss(x)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def _plain_loss(self, x: Tensor) -> Tensor:
        if self.task.recipe.binarize:
            x = torch.bernoulli(x)
        low = autocast_dtype(self.precision)
        with nullcontext() if low is None else torch.autocast(x.device.type, low):
            encoded = self.encoder(x)
            mu, logvar = encoded.chunk(2, dim=1) if isinstance(encoded, Tensor) else encoded
            output = self.decoder(mu + torch.exp(0.5 * logvar) * torch.randn_like(mu))
        mu, logvar, output = mu.float(), logvar.float(), output.float()
        if self.task.recipe.likelihood == "bernoulli":
            nll = F.binary_cross_entropy_with_logits(output, x, reduction="sum")
        else:
            nll = 0.5 * F.mse_loss(output, x, reduction="sum")
        kl = -0.5 * torch.sum(1 + logvar - mu.square() - logvar.exp())
        return minimised(self.task, nll, kl, len(x))
