"""Data sets as tensors, and loaders whose batches are a pure function of (seed, epoch, step).

Importing this does not load torchvision; :func:`load` does, for the data sets that need it.
"""

from .datasets.dataset import Dataset as Dataset
from .datasets.dataset import load as load
from .loaders.base import OrderedLoader as OrderedLoader
from .loaders.batch import Batch as Batch
from .loaders.batch import Loader as Loader
from .loaders.resident import ResidentLoader as ResidentLoader
from .loaders.shuffle import permutation as permutation
from .sources.source import in_memory as in_memory

__all__ = ["Batch", "Dataset", "Loader", "OrderedLoader", "ResidentLoader", "in_memory", "load", "permutation"]
