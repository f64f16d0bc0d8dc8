"""FLOPs are those of the layers, by hand; the ceiling is a rate; neither leaves a trace."""

import copy

import pytest
import torch
from torch import nn

from fastvae.models import PRESETS, build
from fastvae.train.config import TrainConfig
from fastvae.train.measure.roofline import Mark, count_flops, fastest_matmul
from fastvae.utils.precision import DTYPES

MLPS = [name for name, preset in PRESETS.items() if preset.network == "mlp"]
CPU = torch.device("cpu")
SHAPE, BATCH = (1, 5, 7), 6


def closed_form(model):
    """2 * b * in * out for the forward of a layer, twice that for its backward, but once where its input is the data.

    >>> closed_form(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 5)))  # 2 * 6 * (2 * 6 + 3 * 15)
    684
    """
    sizes = [
        2 * BATCH * layer.in_features * layer.out_features for layer in model.modules() if type(layer) is nn.Linear
    ]
    return 3 * sum(sizes) - sizes[0]


@pytest.mark.parametrize("images", [torch.rand(BATCH, *SHAPE), torch.ones(BATCH, *SHAPE, dtype=torch.uint8)])
@pytest.mark.parametrize("preset", MLPS)
def test_the_flops_of_a_preset_are_those_of_its_layers(preset, images):
    model = build(PRESETS[preset], SHAPE)
    assert count_flops(model, TrainConfig(preset=preset), images) == closed_form(model)


@pytest.mark.parametrize("execution", ["traced", "compiled"])
def test_they_are_the_same_however_a_step_is_run(execution):
    model = build(PRESETS["classic"], SHAPE)
    config = TrainConfig(execution=execution, precision="bf16")
    assert count_flops(model, config, torch.rand(BATCH, *SHAPE)) == closed_form(model)


def test_samples_of_z_cost_decoders():
    model, images = build(PRESETS["deep"], SHAPE), torch.rand(BATCH, *SHAPE)
    one, two, three = (
        count_flops(model, TrainConfig(preset="deep", objective="iwae", samples=samples), images)
        for samples in (1, 2, 3)
    )
    decoder = closed_form(model.decoder)  # its input needs a gradient, unlike the data
    assert (
        two - one == three - two == decoder + 2 * BATCH * model.decoder[0].in_features * model.decoder[0].out_features
    )


def test_counting_changes_neither_the_model_nor_the_random_numbers():
    model = build(PRESETS["classic"], SHAPE)
    model.encoder.insert(1, nn.Dropout())
    model.encoder.insert(1, nn.BatchNorm1d(SHAPE[1] * SHAPE[2]))
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    assert count_flops(model, TrainConfig(), torch.rand(BATCH, *SHAPE, generator=torch.Generator())) > 0
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("precision", sorted(DTYPES))
def test_the_ceiling_leaves_the_random_numbers_alone(precision):
    state = torch.get_rng_state()
    fastest_matmul(DTYPES[precision], CPU)
    assert torch.equal(torch.get_rng_state(), state)


def test_marks_are_in_order():
    first, second, third = Mark(CPU), Mark(CPU), Mark(CPU)
    assert first.seconds_since(first) == 0
    assert 0 <= second.seconds_since(first) <= third.seconds_since(first)
