"""Dynamic binarisation: the data that it needs, and the test images of a run that uses it.

:class:`fastvae.train.step.loss.StepLoss` draws the training pixels again at each step.
"""

from dataclasses import replace

import torch
from torch import Tensor

from fastvae.data import Dataset, Source, TensorSource, in_memory
from fastvae.nn import Bernoulli, Likelihood
from fastvae.ops import Noise
from fastvae.utils.errors import InputError

from .step.loss import TEST_PIXEL_STREAM


def check_binarize(dataset: Dataset, likelihood: Likelihood) -> None:
    """Raise InputError for pixels that are not uint8, and so not probabilities, or for another likelihood."""
    if dataset.train.dtype != torch.uint8:
        raise InputError(
            f"--binarize draws from uint8 pixels, but {dataset.name} has {dataset.train.dtype}: use --binarize False"
        )
    if not isinstance(likelihood, Bernoulli):
        raise InputError(
            f"--binarize goes with a Bernoulli likelihood, but the model's is {type(likelihood).__name__}: "
            "use --binarize False"
        )


def drawn_for_testing(images: Tensor | Source, seed: int) -> Tensor:
    """Draw test images (N, ...) uint8 black or white, by the run's seed and each image's place alone.

    So every evaluation of a run has the same ones: in each epoch, after ``--resume``, and by ``fastvae evaluate``.
    """
    return Noise(seed, stream=TEST_PIXEL_STREAM).binarize(in_memory(images))


def with_test_drawn(dataset: Dataset, seed: int) -> Dataset:
    """Return a data set whose test images are those of :func:`drawn_for_testing`."""
    return replace(dataset, test=TensorSource(drawn_for_testing(dataset.test, seed)))
