"""The choice of runs that take as many CPU threads as other programs leave free."""

from torch import nn

from fastvae.data import Loader, ResidentLoader
from fastvae.models import VAE
from fastvae.models.conv import has_convolutions
from fastvae.models.known import is_known
from fastvae.train.config import ResolvedConfig

# torch splits sums over the batch among its threads here: gradients of their weights, and BatchNorm's statistics.
_SUMS_OVER_BATCH = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm, nn.LayerNorm, nn.PReLU)


def may_adapt(config: ResolvedConfig, model: VAE, loader: Loader) -> bool:
    """Return whether a run's number of threads may follow other programs' load.

    With another number, torch's convolutions and norms round otherwise, as do the sums of the reference backend, and a
    user's own model may compute anything. A loader's processes would pass for other programs.
    """
    is_free = config.autotune and not config.deterministic and isinstance(loader, ResidentLoader)
    if not is_free or config.backend == "reference" or not is_known(model) or has_convolutions(model):
        return False
    return not any(isinstance(module, _SUMS_OVER_BATCH) for module in model.modules())
