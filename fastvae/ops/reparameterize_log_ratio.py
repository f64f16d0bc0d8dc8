"""Samples of the posterior for the importance-weighted bound, with the log ratio that weighs each."""

from typing import Literal

import torch
from torch import Tensor

from fastvae import reference

from . import _check, _library
from ._latent import define_latent, fused_latent
from .noise import Noise, explicit, noise_arguments

Estimator = Literal["iwae", "stl", "dreg"]
ESTIMATORS = {"iwae": 0, "stl": 1, "dreg": 2}  # the codes that the kernels know

define_latent(
    "reparameterize_log_ratio",
    "z ratio",
    "SymInt samples",
    lambda mu, samples: (
        mu.new_empty((mu.shape[0], samples, *mu.shape[1:])),
        mu.new_empty((mu.shape[0], samples), dtype=torch.float64 if mu.dtype == torch.float64 else torch.float32),
    ),
    backward_settings="int estimator",
)
_DREG_WITHOUT_RATIO = (
    "estimator='dreg' takes its weights from the gradient of log_ratio, but log_ratio has none: "
    "use it in importance_weighted_nll, or take estimator='iwae'"
)


def reparameterize_log_ratio(
    mu: Tensor,
    logvar: Tensor,
    noise: Noise | Tensor | None = None,
    *,
    samples: int,
    estimator: Estimator = "iwae",
    backend: _library.Backend = "auto",
) -> tuple[Tensor, Tensor]:
    r"""Draw K samples ``z ~ q = N(mu, exp(logvar))`` for each row, and weigh each against the prior p = N(0, I).

    .. math:: z_k = \mu + e^{\log\sigma^2 / 2} \, \epsilon_k, \qquad
        \log q(z_k \mid x) - \log p(z_k) = \tfrac12 \sum_j z_{kj}^2 - \epsilon_{kj}^2 - \log\sigma_j^2

    :func:`importance_weighted_nll` takes the log ratio beside the likelihood of each sample. mu and logvar are read
    once for all samples. The noise is never stored: backward draws it again.

    Args:
        mu: (B, ...) fp32, bf16, fp16 or fp64; any strides, so the halves of one packed head are taken as they are.
        logvar: same shape and type.
        noise: a :class:`fastvae.Noise` key, which draws ``noise.draw((B, K, ...))``, so that a row's K samples are
            the same however the batch is split; a tensor ``eps`` (B, K, ...); or None for a fresh key from torch's
            default generator, which ``torch.manual_seed`` seeds.
        samples: K, at least 1.
        estimator: the estimator of the gradients of mu and logvar. It does not change values or other gradients.

            - "iwae": the gradient itself (Burda et al. 2016, "Importance weighted autoencoders").
            - "stl": mu and logvar are constants in log q, which leaves out its score: a term of mean 0 for K = 1,
              and a bias for more (Roeder et al. 2017, "Sticking the landing").
            - "dreg": "stl" with each sample's gradient, that of z and that of log_ratio, times its normalised weight
              w: unbiased, and its signal does not fade as K grows (Tucker et al. 2019, "Doubly reparameterized
              gradient estimators for Monte Carlo objectives"). The weights are read off the gradient of log_ratio,
              ``w[b, k] = g[b, k] / g[b].sum()`` (0 where the sum is 0). **The condition:** log_ratio must only be used
              in ``importance_weighted_nll``, whose gradient is w times a factor of the row. Gradients that reach z by
              another way are multiplied by w too.
        backend: "auto", "triton", "native" or "reference".

    Returns:
        z (B, K, ...), dense, in the type of ``mu``; and the log ratio (B, K) in nats, summed over the event in a fixed
        order, in fp32 (fp64 for fp64).

    Raises:
        ValueError: shapes or devices differ, there is no sample, or an option is unknown.
        TypeError: an unsupported dtype.
        RuntimeError: in backward, "dreg" without a gradient of log_ratio.

    Computed in fp32 or better, from z before it is rounded to its type. In fp32, a logvar over 87 may overflow to an
    infinite log ratio; under -175 the gradients of "stl" and "dreg", which divide by the deviation, are not finite.
    Infinities and NaNs are passed on. Differentiating twice raises a RuntimeError; the "reference" backend can.

    >>> import torch
    >>> eps = torch.tensor([[[0.5, -1.0], [0.0, 2.0]]])
    >>> z, log_ratio = reparameterize_log_ratio(torch.ones(1, 2), torch.zeros(1, 2), eps, samples=2)
    >>> z
    tensor([[[1.5000, 0.0000],
             [1.0000, 3.0000]]])
    >>> log_ratio
    tensor([[0.5000, 3.0000]])
    """
    mu, logvar = _check.latents(mu, logvar)
    if not isinstance(samples, int):
        raise TypeError(f"samples must be a whole number, not {samples!r}")
    if samples < 1:
        raise ValueError(f"samples must be at least 1, not {samples}")
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator must be 'iwae', 'stl' or 'dreg', not {estimator!r}")
    shape = (mu.shape[0], samples, *mu.shape[1:])
    arguments = noise_arguments(noise, mu, shape)
    operators = _library.resolve(backend, mu)
    if operators is None:
        eps = explicit(arguments, mu, shape)
        return reference.reparameterize_log_ratio(mu, logvar, eps, estimator=estimator)
    z, log_ratio = fused_latent(
        operators,
        "reparameterize_log_ratio",
        mu,
        logvar,
        arguments,
        (samples,),
        backward_settings=(ESTIMATORS[estimator],),
        error_without_second=_DREG_WITHOUT_RATIO if estimator == "dreg" else "",
    )
    return z, log_ratio
