"""Data sets as tensors, and loaders whose batches are a pure function of (seed, epoch, step).

Importing this does not load torchvision; :func:`load` does, for the data sets that need it.
"""

from .dataset import Dataset as Dataset
from .dataset import load as load
from .loader import Batch as Batch
from .loader import Loader as Loader
from .order import permutation as permutation
from .ordered import OrderedLoader as OrderedLoader
from .resident import ResidentLoader as ResidentLoader
from .source import in_memory as in_memory

__all__ = ["Batch", "Dataset", "Loader", "OrderedLoader", "ResidentLoader", "in_memory", "load", "permutation"]
