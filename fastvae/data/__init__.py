"""Data sets as tensors, and loaders whose batches are a pure function of (seed, epoch, step).

Importing this loads neither scikit-learn nor torchvision; :func:`load` does, for the data sets that need them.
"""

from .dataset import Dataset as Dataset
from .dataset import load as load
from .loader import Batch as Batch
from .loader import Loader as Loader
from .order import permutation as permutation
from .resident import ResidentLoader as ResidentLoader

__all__ = ["Batch", "Dataset", "Loader", "ResidentLoader", "load", "permutation"]
