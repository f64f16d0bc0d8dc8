"""Thin modules over :mod:`fastvae.ops`: likelihoods and the ELBO loss."""

from .elbo import ELBO as ELBO
from .elbo import ELBOLoss as ELBOLoss
from .likelihood import Bernoulli as Bernoulli
from .likelihood import Gaussian as Gaussian
from .likelihood import Likelihood as Likelihood
from .likelihood import as_likelihood as as_likelihood
