"""A variational autoencoder from any encoder and decoder."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastvae import ops
from fastvae.nn import ELBO, Likelihood, as_likelihood
from fastvae.nn.draw import draw as draw_pixels
from fastvae.ops import Backend, Noise, Reduction

from .modes import eval_mode

DRAW_STREAM = 32  # added to the latents' noise stream for pixels drawn given them; a ladder's lower level adds 16


class VAEOutput(NamedTuple):
    """The result of a forward pass: the decoder's output (B, ...), z, mu and logvar (B, latent...)."""

    output: Tensor
    z: Tensor
    mu: Tensor
    logvar: Tensor


class VAE(nn.Module):
    """A VAE with posterior N(mu, exp(logvar)), prior N(0, I) and a likelihood on pixels in [0, 1].

    Args:
        encoder: maps floating-point pixels (B, ...) to ``(mu, logvar)``, or to one tensor that is split into them
            along dimension 1.
        decoder: maps z (B, latent...) to logits ("bernoulli") or means ("gaussian") in the shape of the pixels.
        likelihood: "bernoulli", "gaussian", or a :class:`fastvae.nn.Likelihood`.
        latent_shape: the shape of one z, which only :meth:`sample` needs. :class:`fastvae.Trainer` sets it to what the
            encoder gives, if it is left out.

    Attributes:
        levels: number of levels of latents. Objectives that draw latents themselves support one level only.

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
        """Return ``(mu, logvar)``, each (B, latent...), of pixels (B, ...): floats in [0, 1], bool or uint8 (x/255).

        Raises:
            ValueError: the encoder returns one tensor that cannot be split in two.
        """
        encoded = self.encoder(self._floating(x))
        if isinstance(encoded, Tensor):
            if encoded.shape[1] % 2:
                raise ValueError(f"a packed encoder output needs an even dimension 1, but has {tuple(encoded.shape)}")
            mu, logvar = encoded.chunk(2, dim=1)
            return mu, logvar
        mu, logvar = encoded
        return mu, logvar

    def decode(self, z: Tensor) -> Tensor:
        """Return the expected pixels (B, ...) given latents (B, latent...)."""
        return self.likelihood.mean(self.decoder(z))

    def forward(self, x: Tensor, noise: Noise | Tensor | None = None) -> VAEOutput:
        """Encode, sample and decode pixels (B, ...)."""
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
        """Return the negative ELBO of pixels (B, ...), floats or uint8, with one sample of z per row.

        ``loss = weight * nll + weight * beta * kl`` in nats, reduced by ``reduction``; ``nll`` and ``kl`` are detached
        and without these factors.
        """
        mu, logvar = self.encode(x)
        z, kl = ops.reparameterize_kl(mu, logvar, noise, reduction=reduction, backend=backend)
        nll = self.likelihood.nll(self.decoder(z), x, reduction=reduction, weight=weight, backend=backend)
        # beta is not folded into the KL, whose plain value is returned too. As a factor of a scalar it costs nothing,
        # and it reaches the fused backward as grad_output (see fastvae.models.objectives).
        return ELBO(nll + (weight * beta) * kl, nll.detach() / weight, kl.detach())

    @torch.no_grad()
    def sample(self, count: int, noise: Noise | None = None, *, draw: bool = False) -> Tensor:
        """Return pixels (count, ...) of latents from the prior: the expected ones, or with ``draw`` random ones.

        The model computes in eval mode; its modules return to their own modes afterwards.

        Raises:
            ValueError: the VAE has no latent_shape.
            TypeError: ``draw`` is set, but the likelihood cannot be drawn from.
        """
        if self.latent_shape is None:
            raise ValueError("the VAE does not know the shape of its latents: build it with latent_shape=...")
        reference = next(self.parameters())
        zeros = torch.zeros((count, *self.latent_shape), dtype=reference.dtype, device=reference.device)
        z = ops.reparameterize(zeros, zeros, noise)
        with eval_mode(self):
            return self._drawn(self.decoder(z), noise) if draw else self.decode(z)

    def _drawn(self, output: Tensor, noise: Noise | None) -> Tensor:
        """Draw pixels (B, ...) from the likelihood, in a stream of noise beside that of the latents."""
        if noise is not None:
            noise = Noise.from_state(noise.state, noise.row_offset, stream=noise.stream + DRAW_STREAM)
        return draw_pixels(self.likelihood, output, noise)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """Return the expected pixels at the posterior means of ``x`` (B, ...).

        The model computes in eval mode; its modules return to their own modes afterwards.
        """
        with eval_mode(self):
            return self.decode(self.encode(x)[0])

    def _floating(self, x: Tensor) -> Tensor:
        dtype = next(self.parameters()).dtype
        if x.is_floating_point():
            return x.double() if dtype == torch.float64 else x
        return x.to(dtype) if x.dtype == torch.bool else x.to(dtype) / 255
