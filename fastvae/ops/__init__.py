"""Fused operations of the evidence lower bound (ELBO), for any model: exact, deterministic, one pass over memory."""

from ._check import Reduction as Reduction
from ._library import Backend as Backend
from .bernoulli_nll import bernoulli_nll as bernoulli_nll
from .gaussian_kl import gaussian_kl as gaussian_kl
from .gaussian_nll import gaussian_nll as gaussian_nll
from .linear_bernoulli_nll import linear_bernoulli_nll as linear_bernoulli_nll
from .linear_gaussian_nll import linear_gaussian_nll as linear_gaussian_nll
from .noise import Noise as Noise
from .reparameterize import reparameterize as reparameterize
from .reparameterize_kl import reparameterize_kl as reparameterize_kl
