"""Tensors that a bad step changed get their bits back, and the host never looks."""

import pytest
import torch
from torch import nn

from fastvae.train.step.rollback import Rollback

TYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.bool]
ODD = torch.tensor([0.0, -0.0, 1.0, torch.inf, -torch.inf, torch.nan, 3e38, -3e38, 1e-45])


@pytest.mark.parametrize("on_host", [True, False])
@pytest.mark.parametrize("is_bad", [True, False])
def test_the_bits_come_back_or_stay(is_bad, on_host):
    found = torch.zeros(1)
    tensors = [ODD.to(dtype) for dtype in TYPES] + [torch.randn(3, 4).t(), torch.zeros(()), torch.empty(0)]
    guard = Rollback(found, on_host=on_host)
    for turn in range(3):
        before = [tensor.clone() for tensor in tensors]
        guard.remember(iter(tensors))
        for tensor in tensors:
            tensor.copy_(tensor.flatten().flip(0).view_as(tensor) if turn else torch.zeros_like(tensor))
        after = [tensor.clone() for tensor in tensors]
        found.fill_(is_bad)
        guard.undo(iter(tensors))
        for tensor, wanted in zip(tensors, before if is_bad else after, strict=True):
            assert bits(tensor) == bits(wanted)
            assert turn or is_bad or not wanted.any()


def bits(tensor):
    return tensor.contiguous().flatten().view(torch.uint8).tolist() if tensor.numel() else []


def test_what_a_bad_step_made_is_zero():
    found, weight, made = torch.ones(1), torch.ones(3), torch.tensor([torch.nan, 1.0])
    guard = Rollback(found, on_host=False)
    guard.remember([weight])
    weight.fill_(torch.nan)
    guard.undo([weight, made])
    assert (weight.tolist(), made.tolist()) == ([1, 1, 1], [0, 0])
    guard.remember([weight, made])
    made.fill_(5.0)
    found.zero_()
    guard.undo([weight, made])
    assert made.tolist() == [5, 5]


@pytest.mark.parametrize("on_host", [True, False])
@pytest.mark.parametrize("is_bad", [True, False])
def test_a_buffer_that_a_bad_step_replaced_comes_back(is_bad, on_host):
    found, module = torch.zeros(1), nn.Module()
    module.register_buffer("mean", torch.ones(2))
    module.register_buffer("none", None)
    guard = Rollback(found, on_host=on_host)
    for _ in range(2):
        module.mean = torch.ones(2)
        guard.remember(module.buffers(), module.modules())
        module.mean = module.mean * torch.inf
        found.fill_(is_bad)
        guard.undo(module.buffers())
        assert module.mean.tolist() == ([1, 1] if is_bad else [torch.inf, torch.inf])


def test_buffers_that_torch_conjugates_or_negates_lazily_come_back():
    tensors = [torch.tensor([1 + 2j]).conj(), torch.tensor([1 + 2j]).conj().imag]
    before = [tensor.tolist() for tensor in tensors]
    guard = Rollback(torch.ones(1), on_host=True)
    guard.remember(tensors)
    for tensor in tensors:
        tensor.fill_(5.0)
    guard.undo(tensors)
    assert [tensor.tolist() for tensor in tensors] == before
