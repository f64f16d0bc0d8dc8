"""How many operators a step takes on a GPU, where each is a launch: a step has to stay short."""

import collections
import importlib
import warnings

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fastvae import backends
from fastvae.data import ResidentLoader, load
from fastvae.models import build
from fastvae.train.config import TrainConfig, resolve
from fastvae.train.config.schedules import plan
from fastvae.train.distributed.world import World
from fastvae.train.engine import Engine
from fastvae.train.optim import build as optimizer
from fastvae.train.step import nonfinite
from fastvae.train.step.recording import record

from ..recording import as_on_a_gpu

# Views of memory, which launch nothing.
_VIEWS = {"alias", "as_strided", "detach", "expand", "permute", "select", "slice", "split", "split_with_sizes"}
_VIEWS |= {"squeeze", "t", "transpose", "unbind", "unsqueeze", "view"}


class Launches(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.counts = collections.Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        space, name = function._schema.name.split("::")
        if space != "profiler" and name not in _VIEWS:
            self.counts[name] += 1
        return function(*args, **(kwargs or {}))


@pytest.fixture
def launches(monkeypatch):
    """The operators of one step in mid-run; on a CPU, with a GPU's optimisers and without what a CPU's steps have."""
    as_on_a_gpu(monkeypatch)
    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        monkeypatch.setattr(optimizer, "_is_on_gpu", lambda weight: True)
        monkeypatch.setattr(
            importlib.import_module("torch.optim.rmsprop"),
            "_get_capturable_supported_devices",
            lambda *_, **__: ["cpu"],
        )
        for name in ("batch_matmuls", "onednn_matmuls"):
            monkeypatch.setattr(record, name, lambda graph, *, fused: None)
        for name in ("fuse_activations", "fuse_group_norms", "fuse_pixels"):
            monkeypatch.setattr(record, name, lambda graph: None)
        monkeypatch.setattr(nonfinite, "record_step_", lambda found, *_, **__: found.sign_())  # one launch there

    def count(**settings):
        config = resolve(TrainConfig(batch_size=32, execution="traced", **settings))
        device, images = torch.device("cuda" if on_gpu else "cpu"), load("digits").train
        loader = ResidentLoader(images, batch_size=config.batch_size, seed=0, device=device)
        model, world = build(config.recipe, images.shape[1:]), World(0, 0, 1, device)
        stepping = Engine(model, config, world, plan(config, len(loader)), len(images))
        for _ in range(3):
            stepping.train_step(loader.follow())
        with Launches() as seen:
            stepping.train_step(loader.follow())
        return seen.counts

    return count


@pytest.mark.skipif(not backends.has_native(), reason="without the extension, each fused operation is many")
@pytest.mark.parametrize(
    ("most", "settings"),
    [
        (58, {"preset": "leaky", "precision": "bf16"}),
        (56, {"preset": "leaky", "precision": "fp32"}),
        (55, {"preset": "keras", "precision": "bf16"}),
        (70, {"preset": "classic", "precision": "fp16"}),
        (80, {"preset": "leaky", "precision": "bf16", "ema": 0.999, "clip_norm": 100.0}),
    ],
    ids=str,
)
def test_a_step_is_few_launches(launches, most, settings):
    counts = launches(**settings)
    assert counts["_foreach_copy_"] + counts["mm"] > 5  # it is a step
    assert counts.total() <= most, counts


def test_compiling_recommends_nothing(monkeypatch):
    """torch 2.11 warns that an fp32 product for a GPU could be in TF32, which --tf32 decides."""

    def compiling(graph, inputs, options):
        warnings.warn("TensorFloat32 tensor cores for float32 available", UserWarning, stacklevel=2)
        return graph

    monkeypatch.setattr(importlib.import_module("torch._inductor"), "compile", compiling)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert record._compiled(len, []) is len
