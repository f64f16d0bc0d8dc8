"""Helpers of the tests of the decoded cache."""

import time

import torch

from fastvae.data.sources.decode_cache import open_cache
from fastvae.utils.machine import cache_folder

KEY = {"data": "made", "images": 10}


class Made:
    """A source of random images that counts the images read."""

    def __init__(self, shape=(10, 3, 5, 4), pause=0.0, dtype=torch.uint8):
        self.shape, self.dtype, self.pause = shape, dtype, pause
        self.reads = 0
        self.images = torch.randint(256, shape, dtype=dtype, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.images)

    def read(self, indices):
        time.sleep(self.pause)
        self.reads += len(indices)
        return self.images[torch.tensor(indices)]


class Failing(Made):
    """A source whose last image cannot be read."""

    def __init__(self, error, shape=(200, 3, 5, 4)):
        super().__init__(shape)
        self.error = error

    def read(self, indices):
        if len(self) - 1 in indices:
            raise self.error
        return super().read(indices)


def opened(source, folder, key=KEY, workers=2, show=False):
    return open_cache(source, folder, key, workers=workers, show_progress=show)


def content(images):
    return images.read(range(len(images)))


def record():
    """Return the only record, in the user's cache, of a file whose checksums were found correct."""
    (file,) = (cache_folder() / "verified").iterdir()
    return file
