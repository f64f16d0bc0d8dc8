"""The memory format (NCHW or channels_last) of a user's own model and its images."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from fastvae.data import Dataset
from fastvae.models import VAE
from fastvae.models.conv import has_convolutions, lie_in
from fastvae.ops import Noise
from fastvae.train.checkpoint.rng import preserve_rng_state
from fastvae.train.config import SettledExecution, TrainConfig

from .copy_model import copy_model
from .execution import Step
from .loss import StepLoss, StepScalars


@contextmanager
def choose_memory_format(
    model: VAE, dataset: Dataset, config: TrainConfig, device: torch.device
) -> Iterator[tuple[Dataset, str | None]]:
    """Put a convolutional model's weights, in place, and its data into channels_last.

    Some models refuse that, those with a ``.view`` after a convolution for example, and some compute something else,
    those with ``as_strided``. Their weights stay in NCHW, and inside this context their encoder gets all images in
    NCHW; the string that is yielded tells the user why. Nothing changes for a model without convolutions, or for one
    that fails in both formats: the run will report its error.

    Args:
        model: one whose steps can be recorded: they are tried on copies.
        dataset: the images.
        config: the run's settings.
        device: the run's device, as each device's convolutions have rules of their own.

    Yields:
        The data set, and the line to print, or None.
    """
    if not has_convolutions(model):
        yield dataset, None
        return
    plain = _try(torch.contiguous_format, model, dataset, config, device)
    last = _try(torch.channels_last, model, dataset, config, device)
    differ = "it computes something else there"
    refused = last if isinstance(last, str) else None if isinstance(plain, str) or _alike(plain, last) else differ
    if refused is None:
        lie_in(torch.channels_last, model)
        yield dataset.in_channels_last(), None
        return
    with keeping_nchw(model):
        if isinstance(plain, str):
            yield dataset, None
        else:
            lie_in(torch.contiguous_format, model)
            yield dataset, f"images stay in NCHW, as the model refuses channels_last: {refused}"


@contextmanager
def keeping_nchw(model: VAE) -> Iterator[None]:
    """Give a model's encoder all images in NCHW inside the context."""
    hook = model.encoder.register_forward_pre_hook(_in_nchw)
    try:
        yield
    finally:
        hook.remove()


def _in_nchw(_: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    return inputs[0].contiguous()


def _try(
    layout: torch.memory_format, model: VAE, dataset: Dataset, config: TrainConfig, device: torch.device
) -> list[Tensor] | str:
    """Take a step in this memory format on two random images, by a copy of the model.

    Returns its sums and gradients, or the error in one line.
    """
    images = torch.rand((2, *dataset.shape), generator=torch.Generator().manual_seed(0)).to(device)
    if not dataset.train.dtype.is_floating_point:
        images = (images * 255).to(dataset.train.dtype)
    # Evaluation is always eager, and a trace has the strides that torch predicts, which can differ from the real ones.
    executions: tuple[SettledExecution, ...] = ("eager",) if config.execution == "eager" else ("eager", "traced")
    try:
        with preserve_rng_state(device):  # a model may draw from torch's generator
            torch.manual_seed(0)
            trial = StepLoss(lie_in(layout, copy_model(model).to(device)).double(), config.backend)
            noise = Noise(0, 0, device=device)
            one = torch.ones((), device=device)
            for execution in executions:
                step = Step(trial, execution, nullcontext)
                laid = images.contiguous(memory_format=layout)
                sums, gradients = step(laid, noise.state, 0, StepScalars(one, one, one))
    except Exception as error:  # the model's own code may raise anything
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return [sums, *(gradient for gradient in gradients if gradient is not None)]


def _alike(left: list[Tensor], right: list[Tensor]) -> bool:
    return len(left) == len(right) and all(
        bool(((one - other).norm() <= 1e-6 * one.norm() + 1e-12).item()) for one, other in zip(left, right, strict=True)
    )
