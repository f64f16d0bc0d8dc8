"""The training engine. ``python -m fastvae.train`` is its door."""

from .config import TrainConfig as TrainConfig
from .config import resolve as resolve
