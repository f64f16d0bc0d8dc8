"""The VAE that ties an encoder, a decoder and a likelihood together, its training objectives, and the presets."""

from . import objectives as objectives
from .mlp import mlp_vae as mlp_vae
from .objectives import OBJECTIVES as OBJECTIVES
from .objectives import ObjectiveSpec as ObjectiveSpec
from .presets import PRESETS as PRESETS
from .presets import Preset as Preset
from .presets import build as build
from .vae import VAE as VAE
from .vae import VAEOutput as VAEOutput
