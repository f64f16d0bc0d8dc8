"""The KL held to a capacity: a few scalars around the kernels of :func:`gaussian_kl`."""

import math

from torch import Tensor

from fastvae import reference

from . import _check, _library
from ._autograd import Reduce
from .gaussian_kl import gaussian_kl


def capacity_kl(
    mu: Tensor,
    logvar: Tensor,
    capacity: float | Tensor,
    *,
    per_sample: bool = False,
    reduction: _check.Reduction = "batchmean",
    weight: float | Tensor = 1.0,
    backend: _library.Backend = "auto",
) -> Tensor:
    r"""The distance of the KL from a capacity that a schedule raises.

    .. math:: \gamma \, | \mathrm{KL}(N(\mu, \sigma^2) \,\|\, N(0, I)) - C |

    (Burgess et al. 2018, "Understanding disentangling in beta-VAE", equation 8.) The distance is
    that of the batch's mean KL; with ``per_sample``, it is taken for each sample and then reduced.

    Args:
        mu: (B, ...) fp32, bf16, fp16 or fp64; any strides, so the halves of one packed head are taken as they are.
        logvar: same shape and type.
        capacity: C, in nats; a finite number, or a 0-d tensor on the device, which torch.compile and a CUDA graph
            read again at every call.
        per_sample: take the distance for each sample, not for the mean over the batch.
        reduction: "batchmean", "sum" (B times that), or, only with ``per_sample``, "none" (shape (B,)).
        weight: gamma, a factor of loss and gradients; a number, or a 0-d tensor read on the device.
        backend: "auto", "triton", "native" or "reference".

    Returns:
        The loss in fp32 (fp64 for fp64), summed in a fixed order: the same call gives the same bits.

    Raises:
        ValueError: shapes or devices differ, the capacity is not finite, or an option is unknown.
        TypeError: an unsupported dtype.

    If the KL equals the capacity to the bit, the gradient is 0. With several processes, each takes the mean over its
    own batch. Infinities and NaNs are passed on, as in :func:`gaussian_kl`.

    >>> import torch
    >>> mu = torch.tensor([[1.0, 2.0]])  # KL 2.5
    >>> capacity_kl(mu, torch.zeros(1, 2), 4.0, weight=10.0)
    tensor(15.)
    """
    mu, logvar = _check.latents(mu, logvar)
    if isinstance(capacity, Tensor):
        _check.split_weight(capacity, mu, "capacity")
    elif not -math.inf < capacity < math.inf:
        raise ValueError(f"capacity must be a finite number of nats, not {capacity}")
    Reduce.of(reduction, weight, mu)  # checks both
    if reduction == "none" and not per_sample:
        raise ValueError("reduction='none' needs per_sample=True: the distance of a batch mean is one number")
    if _library.resolve(backend, mu) is None:
        return reference.capacity_kl(mu, logvar, capacity, per_sample=per_sample, reduction=reduction, weight=weight)
    if per_sample:
        distance = (gaussian_kl(mu, logvar, reduction="none", backend=backend) - capacity).abs()
        if reduction != "none":
            distance = distance.sum() / len(mu) if reduction == "batchmean" else distance.sum()
        return (distance * weight).to(distance.dtype)
    # The weight's magnitude goes into the kernel: above the capacity, backward then multiplies by 1, which is free.
    magnitude: float | Tensor
    sign: float | Tensor
    if isinstance(weight, Tensor):
        magnitude = weight.abs()
        sign = weight.sign()
    else:
        magnitude = abs(weight)
        sign = math.copysign(1.0, weight)
    samples = len(mu) if reduction == "sum" else 1
    kl = gaussian_kl(mu, logvar, reduction=reduction, weight=magnitude, backend=backend)
    distance = (kl - magnitude * capacity * samples).abs()
    return (distance * sign).to(kl.dtype)
