"""Which runs take as many CPU threads as other programs leave free."""

from fastvae.data import Loader, ResidentLoader
from fastvae.models import VAE
from fastvae.models.conv import has_convolutions
from fastvae.models.known import is_known
from fastvae.train.config import ResolvedConfig


def may_adapt(config: ResolvedConfig, model: VAE, loader: Loader) -> bool:
    """Return whether a run's number of threads may follow other programs' load.

    With another number, torch's convolutions round otherwise, and a user's own model may compute anything. A loader's
    processes would pass for other programs.
    """
    is_free = config.autotune and not config.deterministic and isinstance(loader, ResidentLoader)
    return is_free and is_known(model) and not has_convolutions(model)
