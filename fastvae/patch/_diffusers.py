"""The patch of diffusers: the posterior of AutoencoderKL and related models."""

import functools
from functools import cached_property
from typing import Any

import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from fastvae import ops

from ._undo import Function, Patch

_LOGVAR = (-30.0, 20.0)  # diffusers' bounds


def patch() -> Patch:
    """Replace the constructor of the posterior's class. Documented at :func:`fastvae.patch.diffusers`."""
    return Patch((DiagonalGaussianDistribution, "__init__", _construct))


def _construct(original: Function) -> Function:
    @functools.wraps(original)
    def __init__(self: Any, parameters: Tensor, deterministic: bool = False) -> None:  # noqa: N807
        if deterministic or type(self) is not DiagonalGaussianDistribution:
            original(self, parameters, deterministic)
            return
        # Change the class, not its methods: an object then keeps its behaviour when the patch is undone or applied.
        self.__class__ = FusedGaussianDistribution
        self.parameters = parameters
        self.mean, self._logvar = torch.chunk(parameters, 2, dim=1)
        self.deterministic = False

    return __init__


class FusedGaussianDistribution(DiagonalGaussianDistribution):  # type: ignore[misc]
    """diffusers' posterior with a fused ``sample`` and ``kl``. Other attributes are computed at their first use."""

    parameters: Tensor
    mean: Tensor
    deterministic: bool
    _logvar: Tensor

    @cached_property
    def logvar(self) -> Tensor:
        return torch.clamp(self._logvar, *_LOGVAR)

    @cached_property
    def std(self) -> Tensor:
        return torch.exp(0.5 * self.logvar)

    @cached_property
    def var(self) -> Tensor:
        return torch.exp(self.logvar)

    def sample(self, generator: Any = None) -> Tensor:
        """Draw a sample, with the noise that diffusers draws from the same generator."""
        parameters = self.parameters
        eps = randn_tensor(
            self.mean.shape, generator=generator, device=parameters.device, dtype=parameters.dtype
        )  # fmt: skip
        return ops.reparameterize(self.mean, self._logvar, eps, clamp=_LOGVAR)

    def kl(self, other: Any = None) -> Tensor:
        """Return the KL to N(0, I), (B,), fused. The KL to ``other``, or of shapes that are not 4-d, is diffusers'."""
        if other is not None or self.deterministic or self.mean.ndim != 4:
            theirs: Tensor = super().kl(other)
            return theirs
        kl = ops.gaussian_kl(self.mean, self._logvar, reduction="none", clamp=_LOGVAR)
        return kl.to(self.parameters.dtype)
