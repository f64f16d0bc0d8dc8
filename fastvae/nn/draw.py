"""Random pixels from a likelihood, as opposed to its mean: one function for each likelihood."""

import math
from functools import singledispatch

import torch
from torch import Tensor

from fastvae.ops import Noise

from .bernoulli import Bernoulli, ContinuousBernoulli
from .discrete import Categorical, DiscretizedLogistic, DiscretizedLogisticMixture
from .gaussian import Gaussian, GaussianHead, Laplace, LearnedGaussian
from .likelihood import Likelihood, halves

_FLOOR = -7 - 0.6931471805599453  # the mixture's least log-scale: fastvae.reference.discretized_logistic_mixture_nll


@torch.no_grad()
def draw(likelihood: Likelihood, output: Tensor, noise: Noise | None = None) -> Tensor:
    """Draw pixels (B, ...) in the shape of a target from ``p(x | output)``.

    The same key draws the same pixels, whatever the device, to rounding. Pixels of discrete likelihoods are levels in
    [0, 1]; those of Gaussians and Laplace's may lie outside.

    Args:
        likelihood: one of fastvae's; OptimalGaussian, which has a variance only beside a target, cannot draw.
        output: the decoder's output (B, ...).
        noise: the key; by default a fresh one from torch's generator.

    Raises:
        TypeError: the likelihood has no rule here; ``register`` adds one.

    >>> draw(Bernoulli(), torch.tensor([[-9.0, 9.0]]), Noise(seed=0))
    tensor([[0., 1.]])
    """
    if noise is None:
        noise = Noise.from_state(torch.randint(0, 2**32, (2,), dtype=torch.int64, device=output.device))
    return _pixels(likelihood, output.double(), noise).to(output.dtype)


@singledispatch
def _pixels(likelihood: Likelihood, output: Tensor, noise: Noise) -> Tensor:  # noqa: ARG001 -- the rules' arguments
    raise TypeError(f"pixels cannot be drawn from {type(likelihood).__name__}: use its mean")


register = _pixels.register


@register
def _(_: Bernoulli, output: Tensor, noise: Noise) -> Tensor:
    return (_uniform(noise, output.shape, output) < torch.sigmoid(output)).double()


@register
def _(_: ContinuousBernoulli, output: Tensor, noise: Noise) -> Tensor:
    # The inverse of the distribution function, log(1 + u (e**l - 1)) / l, where e**l cannot overflow: x has the density
    # of logit l where 1 - x has that of -l.
    u = _uniform(noise, output.shape, output)
    falling = -output.abs()
    safe = torch.where(falling > -1e-6, -1e-6, falling)
    x = torch.log1p(u * torch.expm1(safe)) / safe
    return torch.where(output > 0, 1 - x, x)


@register
def _(likelihood: Gaussian, output: Tensor, noise: Noise) -> Tensor:
    return output + math.sqrt(likelihood.variance) * _normal(noise, output.shape, output)


@register
def _(likelihood: LearnedGaussian, output: Tensor, noise: Noise) -> Tensor:
    deviation = torch.exp(likelihood.logvar.double() / 2)
    return output + deviation * _normal(noise, output.shape, output)


@register
def _(_: GaussianHead, output: Tensor, noise: Noise) -> Tensor:
    mean, logvar = halves("GaussianHead", output)
    return mean + torch.exp(logvar / 2) * _normal(noise, mean.shape, output)


@register
def _(likelihood: Laplace, output: Tensor, noise: Noise) -> Tensor:
    u = _uniform(noise, output.shape, output)
    return output - likelihood.scale * torch.sign(u - 0.5) * torch.log(1 - 2 * (u - 0.5).abs())


@register
def _(_: DiscretizedLogistic, output: Tensor, noise: Noise) -> Tensor:
    mean, log_scale = halves("DiscretizedLogistic", output)
    return _logistic_level(mean, log_scale, _uniform(noise, mean.shape, output))


@register
def _(likelihood: DiscretizedLogisticMixture, output: Tensor, noise: Noise) -> Tensor:
    planes = output.unflatten(1, (-1, likelihood.mixtures))  # shares, means, log-scales, couplings: ops has the order
    channels = 3 if planes.shape[1] == 10 else 1
    u = _uniform(noise, (len(output), 1 + channels, *output.shape[2:]), output)
    component = _choose(torch.softmax(planes[:, 0], 1), u[:, :1])
    own = planes.gather(2, component[:, None].expand(-1, planes.shape[1], -1, *component.shape[2:])).squeeze(2)
    couplings = iter(torch.tanh(own[:, 1 + 2 * channels :]).unbind(1))
    drawn: list[Tensor] = []
    for channel in range(channels):
        mean = own[:, 1 + channel]
        for before in drawn:
            mean = mean + next(couplings) * (before - 0.5)
        log_scale = own[:, 1 + channels + channel].clamp(min=_FLOOR)
        drawn.append(_logistic_level(mean, log_scale, u[:, 1 + channel]))
    return torch.stack(drawn, 1)


@register
def _(likelihood: Categorical, output: Tensor, noise: Noise) -> Tensor:
    logits = output.unflatten(1, (likelihood.classes, -1))
    level = _choose(torch.softmax(logits, 1), _uniform(noise, (len(logits), 1, *logits.shape[2:]), output))
    return level.squeeze(1).double() / (likelihood.classes - 1)


def _logistic_level(mean: Tensor, log_scale: Tensor, u: Tensor) -> Tensor:
    """Return the one of 256 levels in whose bin a logistic's quantile of u lies; the end bins reach to infinity."""
    return ((mean + torch.exp(log_scale) * torch.logit(u)) * 255).round().clamp(0, 255) / 255


def _choose(shares: Tensor, u: Tensor) -> Tensor:
    """Return the index (B, 1, ...) drawn from probabilities (B, K, ...) by uniforms (B, 1, ...)."""
    return (shares.cumsum(1)[:, :-1] < u).sum(1, keepdim=True)


def _normal(noise: Noise, shape: tuple[int, ...], like: Tensor) -> Tensor:
    return Noise.from_state(noise.state.to(like.device), noise.row_offset, stream=noise.stream).draw(shape, like.dtype)


def _uniform(noise: Noise, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return uniforms in (0, 1), by the distribution function of the normals that the specification draws."""
    u: Tensor = torch.special.ndtr(_normal(noise, shape, like))
    return u
