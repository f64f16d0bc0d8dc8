"""Plain eager PyTorch, written to be read: the truth that every fused path is held to.

Nothing here imports the rest of fastvae, and nothing here is fast.
"""

from .bernoulli_nll import bernoulli_nll as bernoulli_nll
from .gaussian_kl import gaussian_kl as gaussian_kl
from .gaussian_nll import gaussian_nll as gaussian_nll
from .linear_bernoulli_nll import linear_bernoulli_nll as linear_bernoulli_nll
from .linear_gaussian_nll import linear_gaussian_nll as linear_gaussian_nll
from .noise import philox4x32 as philox4x32
from .noise import standard_normal as standard_normal
from .reparameterize import reparameterize as reparameterize
from .reparameterize_kl import reparameterize_kl as reparameterize_kl
from .training import train as train
