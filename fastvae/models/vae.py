"""A variational autoencoder from any encoder and decoder."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastvae import ops
from fastvae.nn import ELBO, Likelihood, as_likelihood
from fastvae.ops import Backend, Noise, Reduction


class VAEOutput(NamedTuple):
    """What a forward pass computes: the decoder's output (B, ...), z, mu and logvar (B, latent...)."""

    output: Tensor
    z: Tensor
    mu: Tensor
    logvar: Tensor


class VAE(nn.Module):
    """A VAE with posterior N(mu, exp(logvar)), prior N(0, I) and a likelihood on pixels in [0, 1].

    Args:
        encoder: maps floating (B, ...) pixels to ``(mu, logvar)``, or to one tensor whose halves along dimension 1
            these are.
        decoder: maps z (B, latent...) to logits ("bernoulli") or means ("gaussian") in the shape of the pixels.
        likelihood: "bernoulli", "gaussian", or a :class:`fastvae.nn.Likelihood`.
        latent_shape: the shape of one z, which only :meth:`sample` needs.

    levels: how many of latents there are; an objective that draws them itself knows one alone.

    >>> from torch import nn
    >>> vae = VAE(nn.Linear(6, 4), nn.Linear(2, 6), latent_shape=2)
    >>> elbo = vae.loss(torch.rand(5, 6))
    >>> elbo.loss.backward()
    >>> vae.sample(3).shape
    torch.Size([3, 6])
    """

    levels = 1

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: str | Likelihood = "bernoulli",
        *,
        latent_shape: int | Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = as_likelihood(likelihood)
        self.latent_shape = (latent_shape,) if isinstance(latent_shape, int) else latent_shape

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``(mu, logvar)`` of pixels (B, ...): floating in [0, 1], or uint8 read as x/255."""
        encoded = self.encoder(self._floating(x))
        if isinstance(encoded, Tensor):
            if encoded.shape[1] % 2:
                raise ValueError(f"a packed encoder output needs an even dimension 1, but has {tuple(encoded.shape)}")
            mu, logvar = encoded.chunk(2, dim=1)
            return mu, logvar
        mu, logvar = encoded
        return mu, logvar

    def decode(self, z: Tensor) -> Tensor:
        """The expected pixels of latents (B, latent...)."""
        return self.likelihood.mean(self.decoder(z))

    def forward(self, x: Tensor, noise: Noise | Tensor | None = None) -> VAEOutput:
        """Encode, sample, decode."""
        mu, logvar = self.encode(x)
        z = ops.reparameterize(mu, logvar, noise)
        return VAEOutput(self.decoder(z), z, mu, logvar)

    def loss(
        self,
        x: Tensor,
        noise: Noise | Tensor | None = None,
        *,
        beta: float | Tensor = 1.0,
        reduction: Reduction = "batchmean",
        weight: float | Tensor = 1.0,
        backend: Backend = "auto",
    ) -> ELBO:
        """The negative ELBO of pixels (B, ...), floating or uint8, with one sample of z.

        ``loss = weight * nll + weight * beta * kl`` in nats, reduced as asked; ``nll`` and ``kl`` come back detached
        and without the factors.
        """
        mu, logvar = self.encode(x)
        z, kl = ops.reparameterize_kl(mu, logvar, noise, reduction=reduction, backend=backend)
        nll = self.likelihood.nll(self.decoder(z), x, reduction=reduction, weight=weight, backend=backend)
        # beta is not folded into the KL, whose plain value is returned too. As a factor of a scalar it costs nothing,
        # and it reaches the fused backward as grad_output (see fastvae.models.objectives).
        return ELBO(nll + (weight * beta) * kl, nll.detach() / weight, kl.detach())

    @torch.no_grad()
    def sample(self, count: int, noise: Noise | None = None) -> Tensor:
        """Expected pixels (count, ...) of latents drawn from the prior."""
        if self.latent_shape is None:
            raise ValueError("the VAE does not know the shape of its latents: build it with latent_shape=...")
        reference = next(self.parameters())
        zeros = torch.zeros((count, *self.latent_shape), dtype=reference.dtype, device=reference.device)
        return self.decode(ops.reparameterize(zeros, zeros, noise))

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """Expected pixels of the posterior means of ``x`` (B, ...)."""
        return self.decode(self.encode(x)[0])

    def _floating(self, x: Tensor) -> Tensor:
        if x.is_floating_point():
            return x
        dtype = next(self.parameters()).dtype
        return x.to(dtype) / 255
