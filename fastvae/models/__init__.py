"""The VAE that ties an encoder, a decoder and a likelihood together, its training objectives, and the presets.

Importing it is cheap: every public name is loaded at its first use. The presets and the registry of objectives need no
torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import objectives as objectives
    from .build_preset import build as build
    from .mlp import mlp_vae as mlp_vae
    from .objective_specs import OBJECTIVES as OBJECTIVES
    from .objective_specs import ObjectiveSpec as ObjectiveSpec
    from .presets import PRESETS as PRESETS
    from .presets import Preset as Preset
    from .vae import VAE as VAE
    from .vae import VAEOutput as VAEOutput

_NAMES = {
    "OBJECTIVES": "objective_specs",
    "ObjectiveSpec": "objective_specs",
    "PRESETS": "presets",
    "Preset": "presets",
    "VAE": "vae",
    "VAEOutput": "vae",
    "build": "build_preset",
    "mlp_vae": "mlp",
}

__all__ = [
    "OBJECTIVES",
    "PRESETS",
    "VAE",
    "ObjectiveSpec",
    "Preset",
    "VAEOutput",
    "build",
    "mlp_vae",
    "objectives",
]


def __getattr__(name: str) -> Any:
    if name == "objectives":
        return importlib.import_module(f"{__name__}.objectives")
    if name in _NAMES:
        return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
