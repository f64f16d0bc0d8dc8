"""What the tests of patches share: one question, asked with a patch and without."""

import contextlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Run = Callable[[], Sequence[Tensor]]


def error(found: Tensor, truth: Tensor) -> float:
    """The largest error, relative to the largest value."""
    return ((found.double() - truth.double()).abs().max() / truth.double().abs().max().clamp_min(1e-30)).item()


def both(run: Run, patch: Callable[[], contextlib.AbstractContextManager[object]]) -> list[tuple[Tensor, Tensor]]:
    """Each value of a run as (patched, unpatched), from equal seeds."""
    torch.manual_seed(7)
    plain = run()
    with patch():
        torch.manual_seed(7)
        patched = run()
    return list(zip(patched, plain, strict=True))
