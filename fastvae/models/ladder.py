"""A VAE with two levels of latents, whose lower level has a learned prior."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from fastvae import ops
from fastvae.nn import ELBO, Likelihood
from fastvae.ops import Backend, Noise, Reduction

from .blocks import Double, NormedConv, Stem, grid, halve, head, widths
from .conv import Pixels, lie_in, outputs
from .vae import VAE, VAEOutput

LOWER_STREAM = 16  # added to the upper level's noise stream, which is always below 16


class LadderVAE(VAE):
    r"""A ladder VAE of two levels (Sonderby et al. 2016, "Ladder variational autoencoders", section 2.2).

    The upward pass computes features and, for each level i, an estimate (\hat\mu_i, \hat\sigma_i^2) of its latents.
    The downward pass draws the upper latents z_2, whose prior is N(0, I), and computes from them the prior
    N(\mu'_1, \sigma'^2_1) of the lower latents z_1. The posterior of z_1 combines that prior with the estimate,
    weighted by their precisions:

    .. math:: \sigma_1^2 = \frac{1}{\hat\sigma_1^{-2} + \sigma'^{-2}_1}, \qquad
        \mu_1 = \sigma_1^2 (\hat\mu_1 \hat\sigma_1^{-2} + \mu'_1 \sigma'^{-2}_1)

    The KL is the sum over both levels: :func:`fastvae.ops.reparameterize_kl` for z_2 and
    :func:`fastvae.ops.gaussian_prior_kl` for z_1. The noise stream of z_1 is that of z_2 plus 16; an eps given as a
    tensor has no streams and raises ValueError. The ELBO is the only objective that supports two levels.

    Args:
        bottom: images to features.
        top: those features to features on the upper level's grid.
        estimate: features of ``bottom`` to the packed estimate of z_1.
        head: features of ``top`` to packed (mu, logvar) of z_2.
        prior: z_2 to the features of the downward pass.
        prior_head: those features to the packed prior of z_1.
        decoder: z_1 and the features of ``prior``, concatenated along the channels, to the decoder's output.
        likelihood: as for :class:`fastvae.VAE`.
        latent_shape: the shape of one z_2.
    """

    levels = 2

    def __init__(
        self,
        *,
        bottom: nn.Module,
        top: nn.Module,
        estimate: nn.Module,
        head: nn.Module,
        prior: nn.Module,
        prior_head: nn.Module,
        decoder: nn.Module,
        likelihood: str | Likelihood,
        latent_shape: Sequence[int],
    ) -> None:
        super().__init__(bottom, decoder, likelihood, latent_shape=latent_shape)
        self.top = nn.Sequential(top, head)
        self.estimate, self.prior, self.prior_head = estimate, prior, prior_head

    def _up(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the lower level's features, and mu and logvar of z_2."""
        features = self.encoder(self._floating(x))
        mu, logvar = self.top(features).chunk(2, dim=1)
        return features, mu, logvar

    def _posterior(self, features: Tensor, prior_mu: Tensor, prior_logvar: Tensor) -> tuple[Tensor, Tensor]:
        """Mu and logvar of z_1, by the precisions of the estimate and of the prior."""
        mu, logvar = _wide(self.estimate(features)).chunk(2, dim=1)
        # As shares, which neither overflow nor divide: s = 1 / (1 + var'/var^), and so on.
        share = torch.sigmoid(prior_logvar - logvar)
        return prior_mu + share * (mu - prior_mu), prior_logvar + nn.functional.logsigmoid(logvar - prior_logvar)

    def _down(self, z2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the features of the downward pass, and mu and logvar of the prior of z_1."""
        features = self.prior(z2)
        mu, logvar = _wide(self.prior_head(features)).chunk(2, dim=1)
        return features, mu, logvar

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
        noise = _of_two_levels(noise, x)
        features, mu, logvar = self._up(x)
        z2, kl2 = ops.reparameterize_kl(mu, logvar, noise, reduction=reduction, backend=backend)
        down, prior_mu, prior_logvar = self._down(z2)
        mu, logvar = self._posterior(features, prior_mu, prior_logvar)
        z1 = ops.reparameterize(mu, logvar, _lower(noise), backend=backend)
        kl1 = ops.gaussian_prior_kl(mu, logvar, prior_mu, prior_logvar, reduction=reduction, backend=backend)
        kl = kl1 + kl2
        output = self.decoder(torch.cat((z1, down), 1))
        nll = self.likelihood.nll(output, x, reduction=reduction, weight=weight, backend=backend)
        return ELBO(nll + (weight * beta) * kl, nll.detach() / weight, kl.detach())

    def forward(self, x: Tensor, noise: Noise | Tensor | None = None) -> VAEOutput:
        """Encode, sample and decode. mu, logvar and z of the result are those of the upper level."""
        noise = _of_two_levels(noise, x)
        features, mu, logvar = self._up(x)
        z2 = ops.reparameterize(mu, logvar, noise)
        down, prior_mu, prior_logvar = self._down(z2)
        z1 = ops.reparameterize(*self._posterior(features, prior_mu, prior_logvar), _lower(noise))
        return VAEOutput(self.decoder(torch.cat((z1, down), 1)), z2, mu, logvar)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``(mu, logvar)`` of the upper level."""
        _, mu, logvar = self._up(x)
        return mu, logvar

    def decode(self, z: Tensor) -> Tensor:
        """Return the expected pixels given the upper latents, with the lower ones at the mean of their prior."""
        down, prior_mu, _ = self._down(z)
        return self.likelihood.mean(self.decoder(torch.cat((prior_mu, down), 1)))

    @torch.no_grad()
    def sample(self, count: int, noise: Noise | None = None, *, draw: bool = False) -> Tensor:
        assert self.latent_shape is not None
        reference = next(self.parameters())
        zeros = torch.zeros((count, *self.latent_shape), dtype=reference.dtype, device=reference.device)
        noise = _of_two_levels(noise, zeros)
        down, prior_mu, prior_logvar = self._down(ops.reparameterize(zeros, zeros, noise))
        z1 = ops.reparameterize(prior_mu, prior_logvar, _lower(noise))
        output = self.decoder(torch.cat((z1, down), 1))
        return self._drawn(output, noise) if draw else self.likelihood.mean(output)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        features, mu, _ = self._up(x)
        down, prior_mu, prior_logvar = self._down(mu)
        mean, _ = self._posterior(features, prior_mu, prior_logvar)
        return self.likelihood.mean(self.decoder(torch.cat((mean, down), 1)))


def ladder_vae(shape: Sequence[int], width: int, latent_channels: int, likelihood: str | Likelihood) -> LadderVAE:
    """Build a ladder VAE of strided convolutions. The grid of z_2 is 4 to 7 a side, that of z_1 twice as fine.

    The arguments are those of :func:`conv_vae`.

    >>> ladder_vae((3, 32, 32), 8, 2, "mixture").sample(2).shape
    torch.Size([2, 3, 32, 32])
    """
    channels = shape[0]
    likelihood, out = outputs(likelihood, channels)
    count, sides = grid(shape)
    wide = widths(width, count)
    if count < 2:
        raise ValueError(f"a ladder of two levels needs images of 16 pixels or more, but they are {tuple(shape)[1:]}")
    low, high = wide[-2:]
    halved = [halve(before, after) for before, after in pairwise(wide[:-1])]
    doubled = [Double(wide[level], wide[level - 1]) for level in reversed(range(1, count - 1))]
    vae = LadderVAE(
        bottom=nn.Sequential(halve(channels, wide[0], Stem), *halved, NormedConv(low, low)),
        top=nn.Sequential(halve(low, high), NormedConv(high, high)),
        estimate=head(nn.Conv2d(low, 2 * latent_channels, 1), latent_channels),
        head=head(nn.Conv2d(high, 2 * latent_channels, 1), latent_channels),
        prior=nn.Sequential(Stem(latent_channels, high), Double(high, low)),
        prior_head=nn.Conv2d(low, 2 * latent_channels, 1),
        decoder=nn.Sequential(
            Stem(low + latent_channels, low),
            *doubled,
            Pixels(wide[0], out, likelihood),
        ),
        likelihood=likelihood,
        latent_shape=(latent_channels, *sides),
    )
    return lie_in(torch.channels_last, vae)


def _wide(packed: Tensor) -> Tensor:
    """Return mu and logvar in at least fp32: in 16 bits, the KL of a posterior near its prior is rounding error."""
    return packed if packed.dtype == torch.float64 else packed.float()


def _of_two_levels(noise: Noise | Tensor | None, x: Tensor) -> Noise:
    """Return noise that both levels can draw from. Raises ValueError for a tensor."""
    if isinstance(noise, Tensor):
        raise ValueError("a ladder draws noise for two levels, so eps cannot be a tensor: give it a fastvae.Noise")
    if noise is None:  # a fresh key from torch's generator, as the operators draw theirs
        return Noise.from_state(torch.randint(0, 2**32, (2,), dtype=torch.int64, device=x.device))
    return noise


def _lower(noise: Noise) -> Noise:
    """Return the lower level's noise: the same rows and step in another stream, so that both are independent."""
    return Noise.from_state(noise.state, noise.row_offset, stream=noise.stream + LOWER_STREAM)
