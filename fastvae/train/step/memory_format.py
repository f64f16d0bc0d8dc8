"""How the images of a model of one's own lie in memory, and the weights of its convolutions."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace

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
def laid_out(
    model: VAE, dataset: Dataset, config: TrainConfig, device: torch.device
) -> Iterator[tuple[Dataset, str | None]]:
    """The data in channels_last where the model has convolutions, whose weights are then moved, too, in place.

    A model that cannot take that, one with a ``.view`` behind a convolution say, has its weights in NCHW, and inside
    of this context its encoder sees all images so, however their files have them; a line for people says why. Without
    convolutions nothing changes, nor where the model can take neither: the run tells that.
    """
    if not has_convolutions(model):
        yield dataset, None
        return
    refused = _refusal(torch.channels_last, model, dataset, config, device)
    if refused is None:
        lie_in(torch.channels_last, model)
        yield _in_channels_last(dataset), None
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


def _in_channels_last(dataset: Dataset) -> Dataset:
    """What is in memory; what is read comes as its files have it."""
    train, test = (
        images.contiguous(memory_format=torch.channels_last) if isinstance(images, Tensor) else images
        for images in (dataset.train, dataset.test)
    )
    return replace(dataset, train=train, test=test)


def _refusal(
    layout: torch.memory_format, model: VAE, dataset: Dataset, config: TrainConfig, device: torch.device
) -> str | None:
    """What a copy of the model whose weights lie so raises, if anything, in a step with two images in channels_last.

    In one line. The step is on the run's device, whose convolutions have rules of their own.
    """
    images = torch.zeros((2, *dataset.shape), dtype=dataset.train.dtype, device=device)
    # Evaluation is eager; a trace has the strides that torch foretells, which can be others than come.
    executions: tuple[Execution, ...] = ("eager",) if config.execution == "eager" else ("eager", "traced")
    try:
        with preserve_rng_state(device):  # a model may draw from torch's generator
            trial = StepLoss(lie_in(layout, copy.deepcopy(model).to(device)).float(), config.backend)
            noise, one = Noise(0, 0, device=device), torch.ones((), device=device)
            for execution in executions:
                step = Step(trial, execution, nullcontext)
                step(images.contiguous(memory_format=torch.channels_last), noise.state, 0, StepScalars(one, one, one))
    except Exception as error:  # the model's own code may raise anything
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None
