"""The state of the process that a run needs: torch's flags and modes, and the C library's allocator."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from fastvae.train.checkpoint.rng import preserve_rng_state
from fastvae.train.config import TrainConfig
from fastvae.train.step.torch_flags import torch_flags

from .allocator import keeping_freed_memory


@contextmanager
def process_state(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """Set the state that a run needs, and restore the caller's at the end.

    Raises InputError for flags that the device does not allow.
    """
    with ExitStack() as stack:
        stack.enter_context(keeping_freed_memory(device.type == "cpu"))
        stack.enter_context(torch_flags(config, device))
        stack.enter_context(preserve_rng_state(device))
        stack.enter_context(torch.inference_mode(False))  # the caller may be in the middle of an evaluation
        stack.enter_context(torch.enable_grad())
        yield
