"""The weights of products have low-precision copies, which follow them."""

import pytest
import torch
from torch import nn

from fastvae.train.optim.master_weights import MasterWeights


def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 3, 3), nn.GroupNorm(1, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(108, 5)]
    return nn.Sequential(*layers)


def test_without_a_type_there_are_no_copies():
    assert MasterWeights(network(), None).low_precision_copies == {}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_products_have_copies_in_the_type(dtype):
    model = network()
    copies = MasterWeights(model, dtype).low_precision_copies
    assert {id(parameter) for parameter in copies} == {id(p) for k in (0, 4) for p in model[k].parameters()}
    for parameter, copy in copies.items():
        assert parameter.dtype == torch.float32
        assert copy.dtype == dtype
        assert torch.equal(copy, parameter.to(dtype))


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
    assert len(weights.parameters) == len(weights.low_precision_copies) == 3


def test_what_needs_no_gradient_is_not_trained():
    model = network().requires_grad_(False)
    model[4].requires_grad_(True)
    weights = MasterWeights(model, torch.bfloat16)
    assert [tensor.shape for tensor in weights.parameters] == [(5, 108), (5,)]
    assert [copy.requires_grad for copy in weights.low_precision_copies.values()] == [False, False, True, True]
