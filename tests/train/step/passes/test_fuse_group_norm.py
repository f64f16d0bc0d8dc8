"""Norms of a recorded step in one pass with the SiLU behind them: where they are, and where they must not be."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

import fastvae
from fastvae import backends
from fastvae.models import PRESETS, build
from fastvae.ops.internal.group_norm_silu import group_norm_silu, group_norm_silu_backward
from fastvae.train.step.execution import Step
from fastvae.train.step.loss import StepLoss, StepScalars
from fastvae.train.step.passes.fuse_activations import fuse_activations
from fastvae.train.step.passes.fuse_group_norm import fuse_group_norms

aten = torch.ops.aten
pytestmark = pytest.mark.skipif(not backends.has_native(), reason="the C++ extension is not built: run `make setup`")
PLAIN = (aten.native_group_norm.default, aten.native_group_norm_backward.default)
JOINT = (group_norm_silu, group_norm_silu_backward)
Between = Callable[[Tensor], Tensor]


def gradients(between: Between = F.silu, affine: bool = True) -> Callable[..., list[Tensor]]:
    """Of a convolution, a norm, what comes between, and another convolution."""

    def function(x: Tensor, weight: Tensor, scale: Tensor, shift: Tensor) -> list[Tensor]:
        weights = [tensor.detach().requires_grad_() for tensor in (weight, scale, shift)]
        norm = F.group_norm(F.conv2d(x, weights[0], padding=1), 2, *(weights[1:] if affine else []))
        output = F.conv2d(between(norm), weights[0], padding=1)
        return [output.detach(), *torch.autograd.grad(output.square().sum(), weights if affine else weights[:1])]

    return function


def inputs(dtype: torch.dtype, layout: torch.memory_format = torch.channels_last) -> list[Tensor]:
    x, weight = torch.randn(5, 8, 6, 7), torch.randn(8, 8, 3, 3) / 8
    return [*(tensor.to(dtype, memory_format=layout) for tensor in (x, weight)), torch.rand(8), torch.randn(8)]


def joined(function: Callable[..., list[Tensor]], *tensors: Tensor) -> tuple[GraphModule, GraphModule]:
    graphs = []
    for join in (lambda _: None, fuse_group_norms):
        graph = make_fx(function, tracing_mode="fake", _allow_non_fake_inputs=True)(*tensors)
        graph.graph.eliminate_dead_code()
        fuse_activations(graph)  # it comes first, and takes out the aliases
        join(graph)
        graph.recompile()
        graphs.append(graph)
    return graphs[0], graphs[1]


def count(graph: GraphModule, *targets: object) -> int:
    return sum(node.target in targets for node in graph.graph.nodes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_norm_and_its_silu_are_joined_and_give_the_same_numbers(dtype: torch.dtype) -> None:
    tensors = inputs(dtype)
    plain, graph = joined(gradients(), *tensors)
    assert count(plain, *PLAIN) == 2
    assert count(graph, *PLAIN, aten.silu.default, aten.silu_backward.default) == 0
    assert count(graph, *JOINT) == 2
    near = 1e-4 if dtype == torch.float32 else 0.05
    for ours, theirs in zip(graph(*tensors), plain(*tensors), strict=True):
        assert ours.stride() == theirs.stride()
        torch.testing.assert_close(ours, theirs, rtol=near, atol=near * theirs.abs().max().item())


def used_twice(norm: Tensor) -> Tensor:
    return F.silu(norm) + norm


def frozen(x: Tensor, weight: Tensor, scale: Tensor, shift: Tensor) -> list[Tensor]:
    """A norm whose weight nobody trains."""
    weight = weight.detach().requires_grad_()
    output = F.silu(F.group_norm(F.conv2d(x, weight, padding=1), 2, scale, shift))
    return [output.detach(), *torch.autograd.grad(output.square().sum(), [weight])]


def forward_alone(x: Tensor, weight: Tensor, scale: Tensor, shift: Tensor) -> list[Tensor]:
    return [F.silu(F.group_norm(x, 2, scale, shift))]


@pytest.mark.parametrize(
    ("function", "tensors"),
    [
        (gradients(F.relu), inputs(torch.float32)),
        (gradients(used_twice), inputs(torch.float32)),
        (gradients(affine=False), inputs(torch.float32)),
        (frozen, inputs(torch.float32)),
        (forward_alone, inputs(torch.float32)),
        (gradients(), inputs(torch.float32, torch.contiguous_format)),
        (gradients(), [tensor.double() for tensor in inputs(torch.float32)]),
    ],
    ids=["relu", "used twice", "no weight", "frozen", "forward alone", "NCHW", "fp64"],
)
def test_others_stay_what_they_are(function: Callable[..., Any], tensors: list[Tensor]) -> None:
    plain, graph = joined(function, *tensors)
    assert count(graph, *JOINT) == 0
    for ours, theirs in zip(graph(*tensors), plain(*tensors), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("preset", ["conv28", "conv64", "resnet64", "ladder"])
def test_all_norms_of_the_presets_are_joined(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs: list[GraphModule] = []

    def noting(graph: GraphModule) -> bool:
        graphs.append(graph)
        return fuse_group_norms(graph)

    monkeypatch.setattr("fastvae.train.step.recording.record.fuse_group_norms", noting)
    recipe = PRESETS[preset]
    assert recipe.image_size is not None
    shape = (1 if recipe.likelihood == "bernoulli" else 3, recipe.image_size, recipe.image_size)
    vae = build(recipe, shape, width=8)
    norms = sum(isinstance(module, nn.GroupNorm) for module in vae.modules())
    assert norms > 0
    x, one = torch.zeros(2, *shape, dtype=torch.uint8).to(memory_format=torch.channels_last), torch.ones(())
    step = Step(StepLoss(vae, "auto"), "traced", lambda: torch.autocast("cpu", enabled=False))
    step(x, fastvae.Noise(0).state, 0, StepScalars(one, one, one))
    assert count(graphs[0], *PLAIN) == 0
    assert count(graphs[0], *JOINT) == 2 * norms
