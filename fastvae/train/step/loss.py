"""The loss of one batch as a module: from images to the weighted loss and the sums of its terms."""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastvae.models import OBJECTIVES, VAE
from fastvae.ops import Backend, Noise
from fastvae.ops.noise import PIXEL_BIT

# Streams of the noise: the same step draws different numbers in each.
TRAIN_STREAM, EVAL_STREAM, SAMPLE_STREAM = range(3)
NLL_STREAM = 5  # the samples of `fastvae nll`
# Binarized training pixels and binarized test pixels. `Noise.binarize` flips the bit again, so that their numbers are
# those of the streams 3 and 4, as in every run so far.
PIXEL_STREAM = 3 ^ PIXEL_BIT
TEST_PIXEL_STREAM = 4 ^ PIXEL_BIT


class StepScalars(NamedTuple):
    """The scalars that may change from step to step, as 0-d tensors on the device.

    So no schedule makes a step compile or capture again.

    weight: the factor of the loss that is minimised: 1/batch, times a loss scale.
    beta: the factor of the KL term.
    capacity: the target of the KL in nats, for the objective that has one.
    batch_kl: where a batch is computed in parts: the means of :meth:`StepLoss.batch_kl` over the whole batch, for the
        objectives that couple its rows by them.
    """

    weight: Tensor
    beta: Tensor
    capacity: Tensor
    batch_kl: Tensor | None = None


class StepLoss(nn.Module):
    """Computes the weighted loss of a batch, and the unweighted sums of the objective, its nll and its KL.

    Args:
        model: the VAE.
        backend: which fused operators to use, as in :mod:`fastvae.ops`.
        name: one of :data:`fastvae.models.OBJECTIVES`.
        options: the objective's other arguments: ``samples``, ``free_bits``, ``dataset_size``.
        binarize: first draw the pixels of uint8 images black or white, once for encoder and likelihood.
    """

    def __init__(
        self,
        model: VAE,
        backend: Backend,
        name: str = "elbo",
        options: Mapping[str, Any] = MappingProxyType({}),
        *,
        binarize: bool = False,
    ) -> None:
        super().__init__()
        self._backend = backend
        self._binarize = binarize
        self.model = model
        spec = OBJECTIVES[name]
        self._spec = spec
        self._options = options
        self._function = partial(spec.function, backend=backend, **options)

    def forward(
        self, images: Tensor, noise_state: Tensor, row_offset: int, stream: int, scalars: StepScalars
    ) -> tuple[Tensor, Tensor]:
        """Return the loss () of images (b, C, H, W), and the sums ``[objective, nll, kl]`` (3,) over them in nats."""
        images = self._drawn(images, noise_state, row_offset)
        if images.is_floating_point() and scalars.weight.dtype == torch.float64:
            images = images.double()
        noise = Noise.from_state(noise_state, row_offset, stream=stream)
        chosen = {name: getattr(scalars, name) for name in self._spec.scalars}
        if scalars.batch_kl is not None:
            chosen["batch_kl"] = scalars.batch_kl
        value = self._function(self.model, images, noise, reduction="sum", weight=scalars.weight, **chosen)
        return value.loss, torch.stack((value.bound, value.nll, value.kl))

    @torch.no_grad()
    def batch_kl(self, images: Tensor, noise_state: Tensor, row_offset: int) -> Tensor:
        """Return the KLs that couple the rows of a batch, summed over images (b, C, H, W), fp64, without gradients."""
        assert self._spec.batch_kl is not None
        return self._spec.batch_kl(self.model, self._drawn(images, noise_state, row_offset), **self._options)

    def _drawn(self, images: Tensor, noise_state: Tensor, row_offset: int) -> Tensor:
        if not self._binarize:
            return images
        pixels = Noise.from_state(noise_state, row_offset, stream=PIXEL_STREAM)
        return pixels.binarize(images, backend=self._backend)
