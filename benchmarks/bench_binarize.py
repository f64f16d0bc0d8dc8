"""Pixels drawn black or white. Per element: one byte read, one byte written, and a quarter of a Philox call."""

import pytest
import timing
import torch


def eager(target):
    return torch.bernoulli(target / 255).mul_(255).to(torch.uint8)


def fused(target):
    return timing.noise(target.device).binarize(target)


CONTENDERS = {"fastvae": lambda: fused, "eager": lambda: eager, **timing.compiled(eager)}


@pytest.mark.parametrize("name", CONTENDERS)
@pytest.mark.parametrize("rows", [20, 100, 1024])
def test_binarize(benchmark, device, rows, name):
    benchmark.group = f"binarize {rows}x784 uint8"
    target = torch.randint(0, 256, (rows, 784), dtype=torch.uint8, device=device)
    call = timing.Calls(CONTENDERS[name](), target)
    timing.time(benchmark, name, call, device=device, moved=2 * target.numel())
