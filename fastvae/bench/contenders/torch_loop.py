"""The contender torch: the fastest loop that a good engineer writes with torch alone."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastvae.models import VAE, Preset
from fastvae.utils.precision import autocast_dtype

from .workload import Contender, Workload, training_loss


def fast_optimizer(recipe: Preset, model: nn.Module, *, capturable: bool = False) -> torch.optim.Optimizer:
    """Return the recipe's optimiser in torch's fastest form. ``capturable`` keeps its step count on the GPU."""
    options: dict[str, Any] = {**recipe.optimizer_options, "capturable": capturable}
    if recipe.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), lr=recipe.lr, fused=True, **options)
    return torch.optim.RMSprop(model.parameters(), lr=recipe.lr, foreach=True, **options)


class TorchLoop(Contender):
    """A loop with the data as one tensor on the device, a loss on logits, a fused optimiser and no ``.item()``.

    Gradients are set to None after each step.

    Args:
        precision: "fp32", or "bf16" for autocast.
        mode: mode of torch.compile, which compiles forward, loss and backward; None runs eagerly.

    Attributes:
        replayed: True if a step is captured in a CUDA graph, which the optimiser has to know.
    """

    model: VAE
    replayed = False

    def __init__(self, workload: Workload, seed: int, precision: str, mode: str | None) -> None:
        self.workload = workload
        self.precision = precision
        self.model = workload.model(seed)
        self.encoder, self.decoder = workload.layers(self.model)
        self.optimizer = fast_optimizer(
            workload.recipe, self.model, capturable=self.replayed and workload.device.type == "cuda"
        )
        self._loss: Callable[[Tensor], Tensor] = self._plain_loss
        if mode is not None:
            # dynamic=False: the smaller last batch of an epoch is compiled separately, instead of slower code for both.
            self._loss = torch.compile(self._plain_loss, mode=mode, dynamic=False, fullgraph=True)

    def epoch(self, _: int) -> Iterator[None]:
        pixels = self.workload.pixels
        device = self.workload.device
        total = torch.zeros((), device=device)
        for index in torch.randperm(len(pixels), device=device).split(self.workload.batch_size):
            total += self._step(pixels.index_select(0, index))
            yield

    def _step(self, x: Tensor) -> Tensor:
        """Train on a batch and return its loss, detached."""
        loss = self._loss(x)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def _plain_loss(self, x: Tensor) -> Tensor:
        if self.workload.recipe.binarize:
            x = torch.bernoulli(x)
        low = autocast_dtype(self.precision)
        with nullcontext() if low is None else torch.autocast(x.device.type, low):
            encoded = self.encoder(x)
            mu, logvar = encoded.chunk(2, dim=1) if isinstance(encoded, Tensor) else encoded
            output = self.decoder(mu + torch.exp(0.5 * logvar) * torch.randn_like(mu))
        mu, logvar, output = (tensor.float() for tensor in (mu, logvar, output))
        if self.workload.recipe.likelihood == "bernoulli":
            nll = F.binary_cross_entropy_with_logits(output, x, reduction="sum")
        else:
            nll = 0.5 * F.mse_loss(output, x, reduction="sum")
        kl = -0.5 * torch.sum(1 + logvar - mu.square() - logvar.exp())
        return training_loss(self.workload, nll, kl, len(x))
