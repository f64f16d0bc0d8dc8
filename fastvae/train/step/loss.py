"""The loss of one batch as a module: images in, the weighted loss and the plain sums of its terms out."""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastvae.models import OBJECTIVES, VAE
from fastvae.ops import Backend, Noise

# Of the noise: the same step draws different noise in each. The last three draw training pixels, test pixels, and the
# samples of `fastvae nll`.
TRAIN_STREAM, EVAL_STREAM, SAMPLE_STREAM, PIXEL_STREAM, TEST_PIXEL_STREAM, NLL_STREAM = range(6)


class StepScalars(NamedTuple):
    """What may change from step to step, as 0-d tensors on the device: a schedule compiles and captures nothing anew.

    weight: the factor of the loss that is minimised: 1/batch, a loss scale.
    beta: the factor of the KL term.
    capacity: of the KL, in nats, for the objective that has one.
    """

    weight: Tensor
    beta: Tensor
    capacity: Tensor


class StepLoss(nn.Module):
    """Images in, the weighted loss and the plain sums of the objective, its nll and its KL out.

    Args:
        model: the VAE.
        backend: of the fused operations.
        name: one of :data:`fastvae.models.OBJECTIVES`.
        options: the objective's other arguments: ``samples``, ``free_bits``, ``dataset_size``.
        binarize: draw the pixels of uint8 images black or white first, once for encoder and likelihood.
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
        self._scalars = spec.scalars
        self._function = partial(spec.function, backend=backend, **options)

    def forward(
        self, images: Tensor, noise_state: Tensor, row_offset: int, stream: int, dials: StepScalars
    ) -> tuple[Tensor, Tensor]:
        """``images`` (b, C, H, W); the loss (), and the sums over the rows ``[objective, nll, kl]`` (3,) in nats."""
        if self._binarize:
            pixels = Noise.from_state(noise_state, row_offset, stream=PIXEL_STREAM)
            images = pixels.binarize(images, backend=self._backend)
        noise = Noise.from_state(noise_state, row_offset, stream=stream)
        chosen = {name: getattr(dials, name) for name in self._scalars}
        value = self._function(self.model, images, noise, reduction="sum", weight=dials.weight, **chosen)
        return value.loss, torch.stack((value.bound, value.nll, value.kl))
