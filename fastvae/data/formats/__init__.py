"""The formats that images come in. :func:`open_images` opens any of them."""

from .registry import Splits as Splits
from .registry import open_images as open_images
