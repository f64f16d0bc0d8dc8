"""The memory format (NCHW or channels_last) of a user's own model and its images."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from fastvae.data import Dataset
from fastvae.models import VAE
from fastvae.models.conv import has_convolutions, lie_in
from fastvae.ops import Noise
from fastvae.train.checkpoint.rng import preserve_rng_state
from fastvae.train.config import Execution, TrainConfig

from .execution import Step
from .loss import StepLoss, StepScalars


@contextmanager
def choose_memory_format(
    model: VAE, dataset: Dataset, config: TrainConfig, device: torch.device
) -> Iterator[tuple[Dataset, str | None]]:
    """Put a convolutional model's weights, in place, and its data into channels_last.

    Some models refuse that, those with a ``.view`` after a convolution for example. Their weights stay in NCHW, and
    inside this context their encoder gets all images in NCHW; the string that is yielded tells the user why. Nothing
    changes for a model without convolutions, or for one that fails in both formats: the run will report its error.

    Yields:
        The data set, and the line to print, or None.
    """
    if not has_convolutions(model):
        yield dataset, None
        return
    refused = _refusal(torch.channels_last, model, dataset, config, device)
    if refused is None:
        lie_in(torch.channels_last, model)
        yield dataset.in_channels_last(), None
        return
    hook = model.encoder.register_forward_pre_hook(_in_nchw)
    try:
        if _refusal(torch.contiguous_format, model, dataset, config, device) is not None:
            yield dataset, None
        else:
            lie_in(torch.contiguous_format, model)
            yield dataset, f"images stay in NCHW, as the model refuses channels_last: {refused}"
    finally:
        hook.remove()


def _in_nchw(_: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    return inputs[0].contiguous()


def _refusal(
    layout: torch.memory_format, model: VAE, dataset: Dataset, config: TrainConfig, device: torch.device
) -> str | None:
    """Return the error, in one line, of a step in this memory format on two images in channels_last; None if it works.

    A copy of the model takes the step, on the run's device, as each device's convolutions have rules of their own.
    """
    images = torch.zeros((2, *dataset.shape), dtype=dataset.train.dtype, device=device)
    # Evaluation is always eager, and a trace has the strides that torch predicts, which can differ from the real ones.
    executions: tuple[Execution, ...] = ("eager",) if config.execution == "eager" else ("eager", "traced")
    try:
        with preserve_rng_state(device):  # a model may draw from torch's generator
            trial = StepLoss(lie_in(layout, copy.deepcopy(model).to(device)).float(), config.backend)
            noise = Noise(0, 0, device=device)
            one = torch.ones((), device=device)
            for execution in executions:
                step = Step(trial, execution, nullcontext)
                step(images.contiguous(memory_format=torch.channels_last), noise.state, 0, StepScalars(one, one, one))
    except Exception as error:  # the model's own code may raise anything
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None
