"""The roofline of a step: the FLOPs of its matmuls, and the rate at which this device multiplies matrices."""

import time
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fastvae.models import VAE
from fastvae.ops import Noise
from fastvae.train.checkpoint.rng import preserve_rng_state
from fastvae.train.config import TrainConfig
from fastvae.train.step.copy_model import copy_model
from fastvae.train.step.execution import Step
from fastvae.train.step.loss import StepLoss, StepScalars

_LARGE = 0.001  # seconds of a matmul that is large enough for the full rate: below, its launch shows
_SECONDS = 0.03


class Matmul(NamedTuple):
    """A product of two square matrices: their side, and the FLOPs per second at which it ran."""

    side: int
    rate: float


def count_flops(model: VAE, config: TrainConfig, images: Tensor) -> int:
    """Count the FLOPs of the matmuls and convolutions in one forward and backward of a run's objective.

    ``images`` (b, C, H, W), uint8 or fp32, on the model's device. A multiplication with its addition is 2 FLOPs: a
    linear layer has ``2 * b * in * out`` in the forward, and twice that in the backward (the gradients of its weight
    and of its input), but only once if its input needs none. The model and torch's generators stay as they are.

    >>> from fastvae.models import PRESETS, build
    >>> count_flops(build(PRESETS["classic"], (1, 8, 8)), TrainConfig(), torch.zeros(3, 1, 8, 8))
    1200000
    >>> first, head, back, last = (2 * 3 * size for size in (64 * 400, 400 * 20, 20 * 400, 400 * 64))
    >>> 2 * first + 3 * (2 * head + back + last)
    1200000
    """
    objective = StepLoss(
        copy_model(model).float(), config.backend, config.objective, config.objective_options(len(images))
    )
    one = torch.ones((), device=images.device)
    noise = Noise(0, 0, device=images.device)
    # Eager: the counter does not know the matmuls that a compiled step calls.
    with preserve_rng_state(images.device), FlopCounterMode(display=False) as counter:
        Step(objective, "eager", nullcontext)(images, noise.state, 0, StepScalars(one, one, one))
    return int(counter.get_total_flops())


def fastest_matmul(dtype: torch.dtype, device: torch.device) -> Matmul:
    """Time matmuls of ``2 * side ** 3`` FLOPs for about 40 ms, and return the fastest. Synchronizes.

    The side is the smallest power of two from 256 at which a matmul takes 1 ms. fp32 uses TF32 if torch's flags allow.

    >>> fastest_matmul(torch.float32, torch.device("cpu")).side >= 256
    True
    """
    generator = torch.Generator(device).manual_seed(0)  # torch's own generator stays where it is
    side = 128
    seconds = 0.0
    while seconds < _LARGE:
        side *= 2
        left, right = (torch.rand(side, side, device=device, generator=generator).to(dtype) for _ in range(2))
        result = left @ right  # the first of a size is slower
        seconds = _seconds(left, right, result)
    end = time.perf_counter() + _SECONDS
    while time.perf_counter() < end:
        seconds = min(seconds, _seconds(left, right, result))
    return Matmul(side, 2 * side**3 / seconds)


def _seconds(left: Tensor, right: Tensor, result: Tensor) -> float:
    started = Mark(left.device)
    torch.mm(left, right, out=result)
    return Mark(left.device).seconds_since(started)


class Mark:
    """A moment on a device's timeline: on a GPU an event in its queue, which nothing waits for until it is read.

    >>> first, second = Mark(torch.device("cpu")), Mark(torch.device("cpu"))
    >>> second.seconds_since(first) >= 0
    True
    """

    def __init__(self, device: torch.device) -> None:
        self._host = time.perf_counter()
        self._event = torch.cuda.Event(enable_timing=True) if device.type == "cuda" else None
        if self._event is not None:
            self._event.record()

    def seconds_since(self, earlier: "Mark") -> float:
        """Return the seconds between two marks. Synchronizes."""
        if self._event is None or earlier._event is None:
            return self._host - earlier._host
        self._event.synchronize()
        return float(earlier._event.elapsed_time(self._event)) / 1e3
