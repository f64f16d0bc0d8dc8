"""Mixture of discretized logistics: the likelihood of PixelCNN++ for 8-bit images."""

from torch import Tensor

from fastvae import reference

from . import _check, _library
from ._autograd import Reduce, define_loss, fused_loss

define_loss("discretized_logistic_mixture_nll", "parameters", "Tensor target, int mixtures")


def discretized_logistic_mixture_nll(
    parameters: Tensor,
    target: Tensor,
    mixtures: int,
    *,
    reduction: _check.Reduction = "batchmean",
    weight: float | Tensor = 1.0,
    backend: _library.Backend = "auto",
) -> Tensor:
    r"""Negative log-likelihood of 8-bit pixels under a mixture of logistics, each integrated over a pixel's bin.

    .. math:: -\log p(x) = -\sum_j \log \sum_k \pi_k \prod_c \Big[ \sigma\Big(\frac{x_c + \frac1{510} -
        \mu_{kc}}{s_{kc}}\Big) - \sigma\Big(\frac{x_c - \frac1{510} - \mu_{kc}}{s_{kc}}\Big) \Big]

    (Salimans et al. 2017, PixelCNN++, eq. 1 to 3 and section 2.2.) The sum is over pixels j; x is read as target/255,
    and the bins of 0 and 255 reach to minus and plus infinity. The bin's probability is exact, with exact gradients,
    also far in the tails, where the paper's code takes the density. One pass reads parameters and target and writes
    the gradient of all parameters; backward is free.

    Args:
        parameters: (B, P, ...) fp32, bf16, fp16 or fp64; any strides: the output of one head. With M mixtures and
            C channels, its P = M * (1 + 2*C + C*(C - 1)/2) channels are, each quantity for all components k in
            turn: M mixture logits (pi is their softmax); C * M means, those of channel 0 first; C * M log-scales
            (log s), in that order too; and for C = 3 the coefficients, M from red to green, M from red to blue,
            M from green to blue.
        target: (B, C, ...) uint8, or bool for black and white, with C = 1 or 3.
        mixtures: M, the number of components.
        reduction: "batchmean" (sum over events, mean over the batch), "sum", or "none" (shape (B,)).
        weight: a factor folded into loss and gradient; a number, or a 0-d tensor read on the device
            (torch.compile does not recompile when it changes).
        backend: "auto", "triton", "native" or "reference".

    Returns:
        The loss in fp32 (fp64 for fp64), summed in a fixed order: the same call gives the same bits.

    Raises:
        ValueError: shapes or devices do not fit, or an option is unknown.
        TypeError: an unsupported dtype.

    In colour, the means move with the channels before them, by the target's values: green by
    ``tanh(c_rg) * (x_r - 1/2)``, blue by ``tanh(c_rb) * (x_r - 1/2) + tanh(c_gb) * (x_g - 1/2)``.

    Means and scales are in units of x. PixelCNN++ has pixels in [-1, 1]: its mean m is ``(m + 1)/2`` here, its
    log-scale s is ``s - log 2``, and logits and coefficients stay what they are (which is why x is centred above).
    Its order of the head differs, too: its code has the M logits first, then for each channel in turn M means, M
    log-scales and M coefficients, the coefficients being those from red to green, from red to blue and from green to
    blue. A head (B, 10 * M, ...) of PixelCNN++ is one of this function after ::

        logits, colours = head.split([M, 9 * M], 1)
        means, log_scales, coefficients = colours.unflatten(1, (3, 3, M)).unbind(2)
        means, log_scales = (means + 1) / 2, log_scales - math.log(2)
        head = torch.cat((logits, *(part.flatten(1, 2) for part in (means, log_scales, coefficients))), 1)

    As in its code, log-scales are clamped from below, there at -7, here at ``-7 - log 2``: below that, the scale's
    gradient is zero.

    A mixture logit of -inf leaves its component out; a log-scale of -inf is at the clamp, an infinite coefficient
    couples by 1. Any other infinity, and any NaN, makes the loss NaN. Differentiating twice raises a RuntimeError; the
    "reference" backend can.

    >>> import torch
    >>> head = torch.zeros(1, 3, 1, 1)  # one logistic of mean 0 and scale 1
    >>> head[:, 1] = 0.5
    >>> black = torch.zeros(1, 1, 1, 1, dtype=torch.uint8)
    >>> discretized_logistic_mixture_nll(head, black, 1)  # -log sigmoid(1/510 - 1/2)
    tensor(0.9729)
    """
    parameters, target = _check.mixture(parameters, target, mixtures)
    reduce = Reduce.of(reduction, weight, parameters)
    operators = _library.resolve(backend, parameters)
    if operators is None:
        return reference.discretized_logistic_mixture_nll(
            parameters, target, mixtures, reduction=reduction, weight=weight
        )
    return fused_loss(operators, "discretized_logistic_mixture_nll", (parameters, target), (mixtures,), reduce)
