"""Dynamic binarisation: the data that it needs, and the test images of a run that has it.

The training pixels are drawn in :class:`fastvae.train.step.loss.Objective`, anew at each step.
"""

import torch
from torch import Tensor

from fastvae.data import Dataset
from fastvae.nn import Bernoulli, Likelihood
from fastvae.ops import Noise
from fastvae.utils.errors import InputError

from .step.loss import TEST_PIXEL_STREAM


def check_binarize(dataset: Dataset, likelihood: Likelihood) -> None:
    """Raise InputError for pixels that are no probabilities in uint8, or a likelihood of grey pixels."""
    if dataset.train.dtype != torch.uint8:
        raise InputError(
            f"--binarize draws from uint8 pixels, but {dataset.name} has {dataset.train.dtype}: use --binarize False"
        )
    if not isinstance(likelihood, Bernoulli):
        raise InputError(
            f"--binarize goes with a Bernoulli likelihood, but the model's is {type(likelihood).__name__}: "
            "use --binarize False"
        )


def drawn_for_testing(images: Tensor, seed: int) -> Tensor:
    """Test images (N, ...) uint8, drawn black or white by the run's seed and the image's place alone.

    So all evaluations of a run see the same ones: each epoch's, those after ``--resume``, and those of its folder.
    """
    return Noise(seed, stream=TEST_PIXEL_STREAM).binarize(images)
