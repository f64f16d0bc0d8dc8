"""The digits of scikit-learn, which need no download."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastvae.data.sources.split import train_test_indices


def read() -> tuple[Tensor, Tensor]:
    """Read the images of ``sklearn.datasets.load_digits``: (1497, 1, 8, 8) and (300, 1, 8, 8) uint8.

    They are read from scikit-learn's file: to import it takes 2 s, which each process of a run would wait for, longer
    than for all of its epochs over these images.
    """
    found = find_spec("sklearn")
    folders = found.submodule_search_locations if found is not None else None
    file = Path(folders[0], "datasets", "data", "digits.csv.gz") if folders else None
    if file is not None and file.is_file():
        images = np.loadtxt(file, delimiter=",", usecols=range(64))
    else:  # another version may keep it elsewhere
        images = import_module("sklearn.datasets").load_digits().data
    # (1797, 64) fp64, whole numbers 0..16
    pixels = (images.reshape(-1, 1, 8, 8) * 255 / 16).round().astype("uint8")
    train, test = (pixels[index] for index in train_test_indices(len(pixels), "digits", every=6))
    return torch.from_numpy(train), torch.from_numpy(test)
