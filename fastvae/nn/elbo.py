"""The negative ELBO as a loss module, for models that already exist."""

from typing import NamedTuple

from torch import Tensor, nn

from fastvae import ops
from fastvae.ops import Backend, Reduction

from .likelihood import Likelihood
from .names import as_likelihood


class ELBO(NamedTuple):
    """The negative evidence lower bound and its two terms, in nats: ``loss = weight * (nll + beta * kl)``.

    nll: ``-log p(x | z)`` without the constant :meth:`fastvae.nn.Likelihood.left_out`.
    """

    loss: Tensor
    nll: Tensor
    kl: Tensor


class ELBOLoss(nn.Module):
    r"""The negative ELBO of a Gaussian-posterior VAE (Kingma & Welling 2013, equation 10).

    .. math:: L = -\log p(x \mid z) + \beta \, \mathrm{KL}(N(\mu, \sigma^2) \,\|\, N(0, I))

    Args:
        likelihood: "bernoulli" (the decoder returns logits), "gaussian" (means), or any other :class:`Likelihood`,
            as a name or an object.
        beta: the factor of the KL (Higgins et al. 2017). Only the loss is returned, so beta is the ``weight`` of
            :func:`fastvae.ops.gaussian_kl`. :meth:`fastvae.VAE.loss`, which returns the plain KL too, multiplies the
            KL's scalar by it afterwards.
        reduction: "batchmean", "sum" or "none".
        backend: as in :mod:`fastvae.ops`.

    >>> import torch
    >>> logits = torch.zeros(4, 784, requires_grad=True)
    >>> mu, logvar = torch.zeros(4, 20), torch.zeros(4, 20)
    >>> ELBOLoss()(logits, torch.zeros(4, 784, dtype=torch.uint8), mu, logvar).item()  # 784 ln 2
    543.42...
    """

    def __init__(
        self,
        likelihood: str | Likelihood = "bernoulli",
        *,
        beta: float = 1.0,
        reduction: Reduction = "batchmean",
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        self.likelihood = as_likelihood(likelihood)
        self.beta = beta
        self.reduction: Reduction = reduction
        self.backend: Backend = backend

    def forward(self, output: Tensor, target: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
        """Return the loss of a decoder's ``output`` for ``target`` (B, ...); ``mu`` and ``logvar`` share a shape."""
        nll = self.likelihood.nll(output, target, reduction=self.reduction, backend=self.backend)
        return nll + ops.gaussian_kl(mu, logvar, reduction=self.reduction, weight=self.beta, backend=self.backend)
