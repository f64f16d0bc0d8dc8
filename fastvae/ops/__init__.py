"""Fused operations of the evidence lower bound (ELBO), for any model: exact, deterministic, one pass over memory."""

from fastvae.utils.machine import Backend as Backend

from ._check import Reduction as Reduction
from .bernoulli_nll import bernoulli_nll as bernoulli_nll
from .bits_per_dimension import bits_per_dimension as bits_per_dimension
from .capacity_kl import capacity_kl as capacity_kl
from .categorical_nll import categorical_nll as categorical_nll
from .continuous_bernoulli_nll import continuous_bernoulli_nll as continuous_bernoulli_nll
from .discretized_logistic_mixture_nll import discretized_logistic_mixture_nll as discretized_logistic_mixture_nll
from .discretized_logistic_nll import discretized_logistic_nll as discretized_logistic_nll
from .free_bits_kl import free_bits_kl as free_bits_kl
from .gaussian_kl import gaussian_kl as gaussian_kl
from .gaussian_logvar_nll import gaussian_logvar_nll as gaussian_logvar_nll
from .gaussian_nll import gaussian_nll as gaussian_nll
from .gaussian_prior_kl import gaussian_prior_kl as gaussian_prior_kl
from .importance_weighted_nll import importance_weighted_nll as importance_weighted_nll
from .laplace_nll import laplace_nll as laplace_nll
from .linear_bernoulli_nll import linear_bernoulli_nll as linear_bernoulli_nll
from .linear_gaussian_nll import linear_gaussian_nll as linear_gaussian_nll
from .noise import Noise as Noise
from .optimal_gaussian_nll import optimal_gaussian_nll as optimal_gaussian_nll
from .reparameterize import reparameterize as reparameterize
from .reparameterize_kl import reparameterize_kl as reparameterize_kl
from .reparameterize_log_ratio import reparameterize_log_ratio as reparameterize_log_ratio
