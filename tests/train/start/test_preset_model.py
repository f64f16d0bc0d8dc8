"""A preset's model, and sizes of it that this machine's memory could not hold: refused before they are allocated."""

import math

import pytest
import torch

from fastvae.data import Dataset
from fastvae.models import PRESETS, build
from fastvae.ops import Noise
from fastvae.train.config import TrainConfig, resolve
from fastvae.train.distributed.world import World
from fastvae.train.start import preset_model
from fastvae.train.start.preset_model import activation_bytes, build_preset
from fastvae.utils import machine
from fastvae.utils.errors import InputError

CPU = World(0, 0, 1, torch.device("cpu"))
SHAPE = (3, 64, 64)


def settings(preset, **more):
    return resolve(TrainConfig(preset=preset, latent_dim=4, **more))


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_activations_are_those_that_autograd_keeps(preset):
    config = settings(preset)
    model = build(config.recipe, SHAPE, config.latent_dim, config.width)
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.loss(torch.zeros(1, *SHAPE, dtype=torch.uint8), noise=Noise(0))
    for parameter in model.parameters():
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    expected = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    assert activation_bytes(config, SHAPE) == expected
    assert expected < preset_model._MOST * math.prod(SHAPE)


def test_more_activations_than_memory_are_refused_and_parts_of_a_batch_fit(monkeypatch):
    images = torch.zeros(1, *SHAPE, dtype=torch.uint8).expand(64, -1, -1, -1)
    dataset = Dataset("made", images, images[:4])
    held = 40 * activation_bytes(settings("conv64"), SHAPE)
    monkeypatch.setattr(machine, "memory", lambda: held)
    monkeypatch.setattr(preset_model, "memory", lambda: held)
    with pytest.raises(InputError, match=r"64 images of 3 x 64 x 64 takes .* GB of memory.*smaller --batch-size"):
        build_preset(settings("conv64", batch_size=64), dataset, CPU)
    for fits in ({"accumulate": 2}, {"precision": "bf16"}):
        assert build_preset(settings("conv64", batch_size=64, **fits), dataset, CPU) is not None
