"""Pixels of a recorded step are scaled in one pass, where they are those that it serves."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from fastvae import backends
from fastvae.ops.internal.scale_pixels import scale_pixels
from fastvae.train.step.passes.fuse_pixels import fuse_pixels

pytestmark = pytest.mark.skipif(not backends.has_native(), reason="the C++ extension is not built: run `make setup`")
GREY = torch.arange(33 * 40).remainder(256).to(torch.uint8).view(33, 40)


def recorded(function: Callable[[Tensor], Tensor]) -> GraphModule:
    return make_fx(function, tracing_mode="fake")(GREY)


def joined(function: Callable[[Tensor], Tensor]) -> GraphModule:
    graph = recorded(function)
    fuse_pixels(graph)
    graph.recompile()
    return graph


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_bits_are_the_same(dtype: torch.dtype) -> None:
    def function(grey: Tensor) -> Tensor:
        return (grey.to(dtype) / 255).view(-1)

    graph = joined(function)
    computed = [node.target for node in graph.graph.nodes if node.op == "call_function"]
    assert computed == [scale_pixels, torch.ops.aten.view.default]
    assert torch.equal(graph(GREY), function(GREY))


def test_a_cast_to_bf16_behind_a_view_is_part_of_the_pass() -> None:
    def function(grey: Tensor) -> Tensor:
        return (grey.float() / 255).view(3, -1).to(torch.bfloat16)

    graph = joined(function)
    computed = [node.target for node in graph.graph.nodes if node.op == "call_function"]
    assert computed == [scale_pixels, torch.ops.aten.view.default]
    assert torch.equal(graph(GREY), function(GREY))


def test_pixels_that_are_also_read_in_fp32_keep_their_cast() -> None:
    def function(grey: Tensor) -> tuple[Tensor, Tensor]:
        pixels = grey.float() / 255
        return pixels.to(torch.bfloat16), pixels

    graph = joined(function)
    assert graph.graph.find_nodes(op="call_function", target=torch.ops.aten._to_copy.default)
    for ours, theirs in zip(graph(GREY), function(GREY), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    "function",
    [
        lambda grey: grey.double() / 255,
        lambda grey: grey.float() / 256,
        lambda grey: grey.float().add(1) / 255,
        lambda grey: grey.t().float() / 255,
        lambda grey: (floating := grey.float()) / 255 + floating,
    ],
    ids=["fp64", "another factor", "something between", "not dense", "read elsewhere"],
)
def test_other_pixels_stay(function: Callable[[Tensor], Tensor]) -> None:
    graph = joined(function)
    assert not graph.graph.find_nodes(op="call_function", target=scale_pixels)
    assert torch.equal(graph(GREY), function(GREY))
