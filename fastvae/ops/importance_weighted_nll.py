"""The importance-weighted bound on minus the log-likelihood."""

from torch import Tensor

from fastvae import reference

from . import _check, _library
from ._autograd import Reduce, define_loss, fused_loss

define_loss("importance_weighted_nll", "nll log_ratio")


def importance_weighted_nll(
    nll: Tensor,
    log_ratio: Tensor,
    *,
    reduction: _check.Reduction = "batchmean",
    weight: float | Tensor = 1.0,
    backend: _library.Backend = "auto",
) -> Tensor:
    r"""The bound of K weighted samples on ``-log p(x)``, in nats: the loss of an importance-weighted autoencoder.

    .. math:: -\log \frac1K \sum_k e^{-\mathrm{nll}_k - r_k}, \qquad r_k = \log q(z_k \mid x) - \log p(z_k)

    (Burda et al. 2016, equation 8.) K = 1 is the sampled ELBO, ``nll + r``; the bound tightens as K grows. The
    gradient of both inputs is each sample's normalised weight, times ``weight``; one pass reads both inputs and
    writes both gradients, and backward is then free.

    Args:
        nll: (B, K) fp32, bf16, fp16 or fp64: minus the log-likelihood of each input from each of its samples.
        log_ratio: same shape and type, from :func:`reparameterize_log_ratio`.
        reduction: "batchmean" (mean over the rows), "sum", or "none" (shape (B,)).
        weight: a factor folded into loss and gradients; a number, or a 0-d tensor read on the device
            (torch.compile does not recompile when it changes).
        backend: "auto", "triton", "native" or "reference".

    Returns:
        The loss in fp32 (fp64 for fp64), summed in a fixed order: the same call gives the same bits.

    Raises:
        ValueError: shapes or devices differ, there is no sample, or an option is unknown.
        TypeError: an unsupported dtype, or two of them.

    The log-weights may be of any size: the largest is subtracted before the exponential. A sample with an infinite nll
    has weight 0. If all samples of a row do, its loss is +inf and its gradients are NaN, as with torch's logsumexp. A
    weight of infinity makes the loss -inf, and a NaN makes it NaN. Differentiating twice raises a
    RuntimeError; the "reference" backend can.

    A step of an importance-weighted autoencoder, with 5 samples for each of 8 inputs:

    >>> import torch
    >>> from fastvae import ops
    >>> encoder, decoder, x = torch.nn.Linear(784, 40), torch.nn.Linear(20, 784), torch.rand(8, 784)
    >>> mu, logvar = encoder(x).chunk(2, dim=1)
    >>> z, log_ratio = ops.reparameterize_log_ratio(mu, logvar, samples=5)
    >>> logits, target = decoder(z).flatten(0, 1), x.repeat_interleave(5, dim=0)
    >>> nll = ops.bernoulli_nll(logits, target, reduction="none").view(8, 5)
    >>> loss = ops.importance_weighted_nll(nll, log_ratio)
    >>> loss.backward()
    """
    _check.pair("nll", nll, "log_ratio", log_ratio)
    if nll.dtype != log_ratio.dtype:
        raise TypeError(f"nll is {nll.dtype}, but log_ratio is {log_ratio.dtype}: both need the same type")
    if nll.ndim != 2 or nll.shape[1] == 0:
        raise ValueError(f"nll and log_ratio have shape {tuple(nll.shape)}, but need (B, K) with a sample or more")
    nll = nll.contiguous()
    log_ratio = log_ratio.contiguous()
    reduce = Reduce.of(reduction, weight, nll)
    operators = _library.resolve(backend, nll)
    if operators is None:
        return reference.importance_weighted_nll(nll, log_ratio, reduction=reduction, weight=weight)
    return fused_loss(operators, "importance_weighted_nll", (nll, log_ratio), (), reduce)
