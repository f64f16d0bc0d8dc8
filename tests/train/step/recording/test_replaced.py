"""Tensors in place of parameters and buffers: under every name, and for as long as the context lasts."""

import pytest
import torch
from torch import nn

from fastvae.train.step.recording.replaced import replaced


def network():
    shared = nn.Linear(3, 3)
    tied = nn.Linear(3, 3)
    tied.bias = shared.bias
    return nn.Sequential(shared, nn.BatchNorm1d(3), shared, tied)


def test_a_shared_layer_and_a_shared_parameter_are_replaced_everywhere_and_restored():
    module = network()
    before = [*module.named_parameters(remove_duplicate=False), *module.named_buffers()]
    others = {name: torch.full_like(tensor, 2.0) for name, tensor in module.named_parameters()}
    with replaced(module, others):
        assert all((value == 2).all() for _, value in module.named_parameters(remove_duplicate=False))
        assert module[0].weight is module[2].weight is others["0.weight"]
        assert module[3].bias is others["0.bias"]
    after = [*module.named_parameters(remove_duplicate=False), *module.named_buffers()]
    assert [name for name, _ in before] == [name for name, _ in after]
    assert all(old is new for (_, old), (_, new) in zip(before, after, strict=True))


def test_buffers_are_replaced_and_an_error_restores():
    module = network()
    mean = module[1].running_mean
    other = torch.ones(3)
    seen = []

    def use():
        with replaced(module, {"1.running_mean": other}):
            seen.append(module[1].running_mean)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use()
    assert seen == [other]
    assert module[1].running_mean is mean
