"""Every operator as a case of the contract, with its inputs, fused and eager."""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastvae import ops, reference

from .support import REDUCTIONS, Case, Inputs, Tensors


def _tuple(function: Callable[..., Any]) -> Callable[..., Tensors]:
    def call(*args: Any, **options: Any) -> Tensors:
        outputs = function(*args, **options)
        return outputs if isinstance(outputs, tuple) else (outputs,)

    return call


def random_pixels(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    if dtype == torch.uint8:
        return torch.randint(0, 256, shape, dtype=dtype, generator=generator)
    return torch.rand(shape, generator=generator, dtype=torch.float64).to(dtype)


def _pixel_inputs(scale: float) -> Callable[..., Inputs]:
    def make(
        shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, target: torch.dtype = torch.uint8
    ) -> Inputs:
        prediction = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
        return Inputs((prediction.to(dtype),), (random_pixels(shape, target, generator),))

    return make


def _pair_inputs(first: float, second: float, shift: float = 0.0) -> Callable[..., Inputs]:
    def make(
        shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, target: torch.dtype = torch.uint8
    ) -> Inputs:
        a, b = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
        return Inputs(
            ((first * a).to(dtype), (second * b + shift).to(dtype)), (random_pixels(shape, target, generator),)
        )

    return make


def _latents(draw_eps: bool) -> Callable[..., Inputs]:
    def make(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Inputs:
        mu, logvar, eps = (torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(3))
        return Inputs((mu, logvar), (eps,) if draw_eps else ())

    return make


def _log_weights(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Inputs:
    """(B, K) for a shape (B, ...)."""
    flat = (shape[0], max(1, math.prod(shape[1:])))
    nll, log_ratio = (torch.randn(flat, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))
    return Inputs((4 * nll, log_ratio), ())


def _three_samples(function: Callable[..., Tensors], **keywords: Any) -> Callable[..., Tensors]:
    """A call with one eps like all others; z comes back as (B, 3 * D), a matrix like all others' outputs."""

    def call(mu: Tensor, logvar: Tensor, eps: Tensor, **options: Any) -> Tensors:
        k = torch.arange(3.0, dtype=eps.dtype, device=eps.device)
        factors = (1.75 * k - 3.75) * k + 1  # 1, -1, 0.5: a tensor of these would be copied from the host
        three = eps.unsqueeze(1) * factors.view(1, 3, *[1] * (eps.ndim - 1))
        z, log_ratio = function(mu, logvar, three, **keywords, **options)
        return z.flatten(1), log_ratio

    return call


CLASSES = 6
MIXTURES = 2


def _class_inputs(
    shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, target: torch.dtype = torch.uint8
) -> Inputs:
    """Logits of CLASSES classes for a target of the given shape."""
    logits = 4 * torch.randn(shape[0], CLASSES, *shape[1:], generator=generator, dtype=torch.float64)
    return Inputs((logits.to(dtype),), (torch.randint(0, CLASSES, shape, dtype=target, generator=generator),))


def _mixture_inputs(
    shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, channels: int = 3
) -> Inputs:
    """Parameters of MIXTURES components for a target (B, channels, ...), some of it black and some white."""
    sizes = (1, channels, channels, channels * (channels - 1) // 2)
    batch, *event = shape
    parts = [
        shift + scale * torch.randn(batch, MIXTURES * size, *event, generator=generator, dtype=torch.float64)
        for size, shift, scale in zip(sizes, (0.0, 0.5, -3.0, 0.0), (1.0, 0.5, 1.0, 1.0), strict=True)
    ]
    pixels = torch.randint(-20, 276, (batch, channels, *event), generator=generator).clamp(0, 255)
    return Inputs((torch.cat(parts, 1).to(dtype),), (pixels.to(torch.uint8),))


def _mixture(function: Callable[..., Tensor]) -> Callable[..., Tensors]:
    return lambda parameters, target, **options: (function(parameters, target, MIXTURES, **options),)


def _two_gaussians(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Inputs:
    return Inputs(tuple(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(4)), ())


def _case(name: str, make: Callable[..., Inputs], reductions: tuple[str | None, ...] = REDUCTIONS) -> Case:
    return Case(name, _tuple(getattr(ops, name)), _tuple(getattr(reference, name)), make, reductions)


def square_layer(size: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer, from its size alone: sixty-fourths, which every type holds."""
    at = torch.arange(size, device=like.device)
    weight = (at[:, None] * 7 + at * 13) % 17 - 8
    return weight.to(like.dtype) / 64, (at % 5).to(like.dtype) / 64


def _linear_case(name: str) -> Case:
    """The last layer's operator as one of hidden and target of the same shape; the layer is a constant."""

    def adapt(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(hidden: Tensor, target: Tensor, *, weight: Any = 1.0, **options: Any) -> Tensor:
            rows = hidden.reshape(hidden.shape[0], math.prod(hidden.shape[1:]))
            layer = square_layer(rows.shape[1], rows)
            return function(rows, *layer, target, loss_weight=weight, **options)

        return call

    fused, eager = (_tuple(adapt(getattr(module, name))) for module in (ops, reference))
    return Case(name, fused, eager, _pixel_inputs(1.0))


BERNOULLI_NLL = _case("bernoulli_nll", _pixel_inputs(4.0))
GAUSSIAN_NLL = _case("gaussian_nll", _pixel_inputs(1.0))
GAUSSIAN_KL = _case("gaussian_kl", _latents(draw_eps=False))
GAUSSIAN_PRIOR_KL = _case("gaussian_prior_kl", _two_gaussians)
CATEGORICAL_NLL = _case("categorical_nll", _class_inputs)
DISCRETIZED_LOGISTIC_MIXTURE_NLL = Case(
    "discretized_logistic_mixture_nll",
    _mixture(ops.discretized_logistic_mixture_nll),
    _mixture(reference.discretized_logistic_mixture_nll),
    _mixture_inputs,
)
REPARAMETERIZE = _case("reparameterize", _latents(draw_eps=True), (None,))
REPARAMETERIZE_KL = _case("reparameterize_kl", _latents(draw_eps=True))
LAPLACE_NLL = _case("laplace_nll", _pixel_inputs(1.0))
CONTINUOUS_BERNOULLI_NLL = _case("continuous_bernoulli_nll", _pixel_inputs(3.0))
GAUSSIAN_LOGVAR_NLL = _case("gaussian_logvar_nll", _pair_inputs(1.0, 1.0))
OPTIMAL_GAUSSIAN_NLL = _case("optimal_gaussian_nll", _pixel_inputs(1.0), ("batchmean", "sum"))
DISCRETIZED_LOGISTIC_NLL = _case("discretized_logistic_nll", _pair_inputs(0.3, 1.0, shift=-3.0))
IMPORTANCE_WEIGHTED_NLL = _case("importance_weighted_nll", _log_weights)
REPARAMETERIZE_LOG_RATIO = Case(
    "reparameterize_log_ratio",
    _three_samples(ops.reparameterize_log_ratio, samples=3),
    _three_samples(reference.reparameterize_log_ratio),
    _latents(draw_eps=True),
    (None,),
)
LINEAR_BERNOULLI_NLL = _linear_case("linear_bernoulli_nll")
LINEAR_GAUSSIAN_NLL = _linear_case("linear_gaussian_nll")
FREE_BITS_KL = Case(
    "free_bits_kl",
    _tuple(functools.partial(ops.free_bits_kl, free_bits=0.5)),
    _tuple(functools.partial(reference.free_bits_kl, free_bits=0.5)),
    _latents(draw_eps=False),
    ("batchmean", "sum"),
)
CASES = (
    BERNOULLI_NLL,
    GAUSSIAN_NLL,
    GAUSSIAN_KL,
    REPARAMETERIZE,
    REPARAMETERIZE_KL,
    LAPLACE_NLL,
    CONTINUOUS_BERNOULLI_NLL,
    GAUSSIAN_LOGVAR_NLL,
    OPTIMAL_GAUSSIAN_NLL,
    DISCRETIZED_LOGISTIC_NLL,
    IMPORTANCE_WEIGHTED_NLL,
    REPARAMETERIZE_LOG_RATIO,
    CATEGORICAL_NLL,
    DISCRETIZED_LOGISTIC_MIXTURE_NLL,
    GAUSSIAN_PRIOR_KL,
    LINEAR_BERNOULLI_NLL,
    LINEAR_GAUSSIAN_NLL,
    FREE_BITS_KL,
)
