"""The loss of one batch as a module, so that DDP and torch.compile can wrap it."""

import torch
from torch import Tensor, nn

from ..models import VAE
from ..ops import Backend, Noise

TRAIN_STREAM, EVAL_STREAM, SAMPLE_STREAM = 0, 1, 2  # of the noise: the same step draws different noise in each


class Objective(nn.Module):
    """Images in, the weighted loss and the plain sums of nll and KL out."""

    def __init__(self, model: VAE, beta: float, backend: Backend) -> None:
        super().__init__()
        self.model = model
        self.beta = beta
        self.backend: Backend = backend

    def forward(
        self, images: Tensor, noise_state: Tensor, row_offset: int, stream: int, weight: float
    ) -> tuple[Tensor, Tensor]:
        """``images`` (b, C, H, W); returns the loss () and the sums over the rows ``[nll, kl]`` (2,) in nats."""
        noise = Noise.from_state(noise_state, row_offset, stream=stream)
        elbo = self.model.loss(images, noise, beta=self.beta, reduction="sum", weight=weight, backend=self.backend)
        return elbo.loss, torch.stack((elbo.nll, elbo.kl))
