"""The twin computes with cast weights of products, and shares all else with the model."""

import pytest
import torch
from torch import nn

from fastvae.train.optim.master_weights import MasterWeights


def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 3, 3), nn.GroupNorm(1, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(108, 5)]
    return nn.Sequential(*layers)


def test_without_a_type_it_is_the_model():
    model = network()
    weights = MasterWeights(model, None)
    assert weights.compute_model is model
    assert weights.low_precision_copies == {}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_products_are_cast_and_the_rest_is_shared(dtype):
    model = network()
    twin = MasterWeights(model, dtype).compute_model
    for index in (0, 4):
        assert twin[index].weight.dtype == twin[index].bias.dtype == dtype
        assert torch.equal(twin[index].weight, model[index].weight.to(dtype))
        assert model[index].weight.dtype == torch.float32
    for index in (1, 2):
        assert twin[index].weight is model[index].weight
    assert twin[2].running_mean is model[2].running_mean


def test_refreshing_follows_the_model():
    model = network()
    weights = MasterWeights(model, torch.bfloat16)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    weights.refresh_copies()
    for own, copy in weights.low_precision_copies.items():
        assert torch.equal(copy, own.to(torch.bfloat16))
    assert len(weights.low_precision_copies) == 4


def test_a_weight_of_two_layers_stays_one():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    weights = MasterWeights(model, torch.bfloat16)
    assert weights.compute_model[1].weight is weights.compute_model[0].weight
    assert len(weights.parameters) == len(weights.low_precision_copies) == 3


def test_what_needs_no_gradient_is_left_out():
    model = network().requires_grad_(False)
    model[4].requires_grad_(True)
    weights = MasterWeights(model, torch.bfloat16)
    assert [tensor.shape for tensor in weights.low_precision_copies] == [(5, 108), (5,)]
    assert weights.compute_model[0].weight.dtype == torch.bfloat16
