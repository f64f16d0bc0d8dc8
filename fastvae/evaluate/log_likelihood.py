"""Estimates of -log p(x) by importance sampling."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from fastvae.models import VAE
from fastvae.ops import Noise, importance_weighted_nll, reparameterize_log_ratio
from fastvae.train.step.loss import NLL_STREAM

_ROWS = 10_000  # samples per pass of the decoder: 31 MB of fp32 logits for 784 pixels
# On a GPU, bytes of fp32 pixels per pass: 85,000 samples of 784 pixels, so that some 40 launches take little of the
# time. Reasoned, NOT YET MEASURED ON A GPU.
_BYTES_ON_GPU = 2**28


@torch.no_grad()
def estimate_nll(model: VAE, images: Tensor, samples: int, seed: int, *, rows: int | None = None) -> Iterator[Tensor]:
    r"""Yield the bound of K samples on ``-log p(x)`` in nats, per image: (n,) fp64 for the next n images at a time.

    .. math:: -\log \frac1K \sum_k \frac{p(x \mid z_k) \, p(z_k)}{q(z_k \mid x)}, \qquad z_k \sim q(z \mid x)

    (Burda et al. 2016, equation 8, and section 5 for K = 5000.) For K = 1 it is the negative ELBO with a sampled KL.
    As K grows, its expectation falls to ``-log p(x)``, less the constant that a Gaussian likelihood leaves out.

    Args:
        model: a VAE whose likelihood has a value per row.
        images: (N, ...), uint8 or floating, as the model takes them, on its device.
        samples: K, at least 1.
        seed: of the samples; those of an image depend on the seed, on K and on the image's place.
        rows: samples per pass of the decoder, which changes the memory and the rounding; by default the device decides.

    The noise is that of ``objectives.importance_weighted(model, images, Noise(seed, stream=NLL_STREAM), samples=K)``.
    """
    device = next(model.parameters()).device
    state = Noise(seed, device=device).state
    rows = rows or _rows(images, device)
    at_once = max(1, rows // samples)  # images
    for start in range(0, len(images), at_once):
        x = images[start : start + at_once]
        mu, logvar = model.encode(x)
        log_sum = torch.full((len(x),), -torch.inf, dtype=torch.float64, device=device)
        for first in range(0, samples, rows):
            count = min(rows, samples - first)
            # One row for each sample, those of an image in a row: the order of the noise of K samples.
            noise = Noise.from_state(state, start * samples + first, stream=NLL_STREAM)
            means, logvars, targets = (tensor.repeat_interleave(count, dim=0) for tensor in (mu, logvar, x))
            z, log_ratio = reparameterize_log_ratio(means, logvars, noise, samples=1)
            nll = model.likelihood.nll(model.decoder(z[:, 0]), targets, reduction="none")
            shape = len(x), count
            of_these = importance_weighted_nll(nll.view(shape), log_ratio.to(nll).view(shape), reduction="none")
            log_sum = torch.logaddexp(log_sum, math.log(count) - of_these.double())
        yield math.log(samples) - log_sum


def _rows(images: Tensor, device: torch.device) -> int:
    if device.type != "cuda":
        return _ROWS
    return max(1, _BYTES_ON_GPU // (4 * max(1, math.prod(images.shape[1:]))))
