"""The model of a preset, for the images at hand."""

import torch

from fastvae.data import Dataset
from fastvae.models import VAE, build
from fastvae.train.config import ResolvedConfig
from fastvae.utils.errors import InputError
from fastvae.utils.files import reason
from fastvae.utils.machine import check_fits

_COPIES = 3  # of the weights' memory, at least, to train them: the weights and two moments


def build_preset(config: ResolvedConfig, dataset: Dataset, device: torch.device) -> VAE:
    """Build the preset's model, initialized by the seed. Raises InputError for images or sizes that it cannot have."""
    shape = " x ".join(map(str, dataset.shape))
    try:
        with torch.device("meta"):  # which takes no memory
            outline = build(config.recipe, dataset.shape, config.latent_dim, config.width)
        size = sum(parameter.numel() * parameter.element_size() for parameter in outline.parameters())
        check_fits(
            size * (_COPIES if device.type == "cpu" else 1),
            f"to train preset {config.preset} on images of {shape}",
            "give a smaller --image-size, --latent-dim or --width",
        )
        torch.manual_seed(config.seed)
        return build(config.recipe, dataset.shape, config.latent_dim, config.width)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"preset {config.preset} cannot have images of {shape}: {error}") from error
    except RuntimeError as error:  # torch's, for sizes beyond the address space
        raise InputError(
            f"preset {config.preset} cannot have --latent-dim {config.latent_dim} and images of {shape} "
            f"({reason(error)}): give smaller ones"
        ) from error
