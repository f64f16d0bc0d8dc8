"""The patch of pythae: the losses of VAE, BetaVAE and IWAE."""

import functools
from collections.abc import Callable
from typing import Any, Literal

import torch
from pythae.models import IWAE, VAE, BetaVAE
from torch import Tensor

from fastvae import ops

from ._reconstruction import bernoulli, fits, watched
from ._undo import Function, Patch


def patch() -> Patch:
    """Replace ``forward`` and ``loss_function`` of the three classes. Documented at :func:`fastvae.patch.pythae`."""
    return Patch(
        *((model, "forward", _forward) for model in (VAE, BetaVAE, IWAE)),
        (VAE, "loss_function", functools.partial(_elbo, beta=lambda model: 1.0)),
        (BetaVAE, "loss_function", functools.partial(_elbo, beta=lambda model: model.beta)),
        (IWAE, "loss_function", _importance_weighted),
    )


def _forward(original: Function) -> Function:
    """Leave the forward pass as it is, but remember the decoder's sigmoid if the loss will need its argument."""
    watching = watched(original)

    @functools.wraps(original)
    def forward(self: Any, inputs: Any, **kwargs: Any) -> Any:
        chosen = watching if self.model_config.reconstruction_loss == "bce" else original
        return chosen(self, inputs, **kwargs)

    return forward


def _elbo(original: Function, *, beta: Callable[[Any], float]) -> Function:
    @functools.wraps(original)
    def loss_function(
        self: Any, recon_x: Tensor, x: Tensor, mu: Tensor, log_var: Tensor, z: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        if mu.ndim != 2 or not fits(recon_x, x):
            theirs: tuple[Tensor, Tensor, Tensor] = original(self, recon_x, x, mu, log_var, z)
            return theirs
        recon_loss = _reconstruction(self, recon_x.reshape(len(x), -1), x.reshape(len(x), -1), "batchmean")
        kld = ops.gaussian_kl(mu, log_var)
        return recon_loss + beta(self) * kld, recon_loss, kld

    return loss_function


def _importance_weighted(original: Function) -> Function:
    """Fuse the reconstruction, by far the widest term. The weights need each sample's latent terms, not their sum."""

    @functools.wraps(original)
    def loss_function(
        self: Any, recon_x: Tensor, x: Tensor, mu: Tensor, log_var: Tensor, z: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        if not fits(recon_x, x):
            theirs: tuple[Tensor, Tensor, Tensor] = original(self, recon_x, x, mu, log_var, z)
            return theirs
        target = x.reshape(len(x), 1, -1).expand(recon_x.shape)  # (B, samples, pixels)
        nll = _reconstruction(self, recon_x.flatten(0, 1), target.flatten(0, 1), "none")
        recon_loss = nll.view(recon_x.shape[:2])
        # From here on, pythae's own code.
        log_q_z = (-0.5 * (log_var + (z - mu).pow(2) / log_var.exp())).sum(-1)
        log_p_z = -0.5 * z.pow(2).sum(-1)
        kld = log_q_z - log_p_z
        log_w = -(recon_loss + kld)
        weights = torch.softmax(log_w.detach(), dim=1)
        return -(weights * log_w).sum(1).mean(), recon_loss.mean(), kld.mean()

    return loss_function


def _reconstruction(model: Any, recon_x: Tensor, x: Tensor, reduction: Literal["batchmean", "none"]) -> Tensor:
    """Return the reconstruction loss of rows (B, pixels), "bce" or "mse" as the model's configuration says."""
    if model.model_config.reconstruction_loss == "bce":
        return bernoulli(recon_x, x, reduction=reduction)
    return ops.gaussian_nll(recon_x, x, reduction=reduction)
