"""The loss of one batch as a module: images in, the weighted loss and the plain sums of its terms out."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..models import VAE
from ..ops import Backend, Noise

TRAIN_STREAM, EVAL_STREAM, SAMPLE_STREAM = 0, 1, 2  # of the noise: the same step draws different noise in each


class Dials(NamedTuple):
    """What may change from step to step, as 0-d tensors on the device: a schedule compiles and captures nothing anew.

    weight: the factor of the loss that is minimised: 1/batch, a loss scale.
    beta: the factor of the KL term.
    """

    weight: Tensor
    beta: Tensor


class Objective(nn.Module):
    """Images in, the weighted loss and the plain sums of nll and KL out."""

    def __init__(self, model: VAE, backend: Backend) -> None:
        super().__init__()
        self.model = model
        self.backend: Backend = backend

    def forward(
        self, images: Tensor, noise_state: Tensor, row_offset: int, stream: int, dials: Dials
    ) -> tuple[Tensor, Tensor]:
        """``images`` (b, C, H, W); returns the loss () and the sums over the rows ``[nll, kl]`` (2,) in nats."""
        noise = Noise.from_state(noise_state, row_offset, stream=stream)
        weight, beta = dials
        elbo = self.model.loss(images, noise, beta=beta, reduction="sum", weight=weight, backend=self.backend)
        return elbo.loss, torch.stack((elbo.nll, elbo.kl))
