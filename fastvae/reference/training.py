"""The training loop as a tutorial writes it, with the noise of the specification: what the engine is held to."""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from .bernoulli_nll import bernoulli_nll
from .gaussian_kl import gaussian_kl
from .gaussian_nll import gaussian_nll
from .noise import binarize, standard_normal
from .reparameterize import reparameterize

_LIKELIHOODS: dict[str, Callable[..., Tensor]] = {"bernoulli": bernoulli_nll, "gaussian": gaussian_nll}


def train(
    encoder: Callable[[Tensor], tuple[Tensor, Tensor]],
    decoder: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Tensor],
    *,
    seed: int,
    likelihood: str = "bernoulli",
    beta: float = 1.0,
    reduction: str = "sum",
    loss_weight: float = 1.0,
    pixel_stream: int | None = None,
) -> Iterator[tuple[float, float, float]]:
    """Take one step for each batch, and yield its loss, nll and KL in nats per sample.

    Args:
        encoder: maps floating pixels (B, C, H, W) to mu and logvar, (B, latent_dim) each.
        decoder: maps z to logits ("bernoulli") or means ("gaussian") in the shape of the pixels.
        optimizer: over the parameters of both.
        batches: uint8 images (B, C, H, W), in order.
        seed: of the noise; step s draws with the key (seed, s).
        likelihood: "bernoulli" or "gaussian".
        beta: factor of the KL.
        reduction: "sum" or "batchmean": what is minimised over the batch.
        loss_weight: a factor of what is minimised.
        pixel_stream: of the noise by which the pixels are drawn black or white at each step; None leaves them grey.
    """
    dtype = optimizer.param_groups[0]["params"][0].dtype
    for step, images in enumerate(batches):
        key = torch.tensor([seed, step])
        drawn = images if pixel_stream is None else binarize(images, key, stream=pixel_stream)
        x = drawn.to(dtype) / 255
        optimizer.zero_grad()
        mu, logvar = encoder(x)
        eps = standard_normal(key, mu.shape, dtype=dtype)
        output = decoder(reparameterize(mu, logvar, eps))
        nll = _LIKELIHOODS[likelihood](output, x, reduction="sum")
        kl = gaussian_kl(mu, logvar, reduction="sum")
        loss = nll + beta * kl
        objective = loss_weight * (loss / len(x) if reduction == "batchmean" else loss)
        objective.backward()
        optimizer.step()
        yield loss.item() / len(x), nll.item() / len(x), kl.item() / len(x)
