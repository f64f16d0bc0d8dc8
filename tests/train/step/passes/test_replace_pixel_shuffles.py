"""Pixel shuffles of a recorded step are fastvae's own where the images are in channels_last."""

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

from fastvae import backends
from fastvae.ops.internal.pixel_shuffle import pixel_shuffle, pixel_unshuffle
from fastvae.train.step.passes.replace_pixel_shuffles import replace_pixel_shuffles

pytestmark = pytest.mark.skipif(not backends.has_native(), reason="the C++ extension is not built: run `make setup`")


def gradient_through(x: Tensor) -> Tensor:
    """A shuffle, and its gradient."""
    x = x.requires_grad_()
    y = F.pixel_shuffle(x, 2).sin()
    (gradient,) = torch.autograd.grad(y, [x], [y.detach()])
    return gradient


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_both_directions_in_channels_last(dtype: torch.dtype) -> None:
    x = torch.randn(3, 8, 5, 5).to(dtype).contiguous(memory_format=torch.channels_last)
    graph = make_fx(gradient_through, tracing_mode="fake")(x.clone())
    assert replace_pixel_shuffles(graph)
    graph.recompile()
    targets = {node.target for node in graph.graph.nodes}
    assert {pixel_shuffle, pixel_unshuffle} <= targets
    assert not targets & {torch.ops.aten.pixel_shuffle.default, torch.ops.aten.pixel_unshuffle.default}
    assert torch.equal(graph(x.clone()), gradient_through(x.clone()))
    assert not replace_pixel_shuffles(graph)


@pytest.mark.parametrize(
    "x",
    [
        torch.randn(3, 8, 5, 5),
        torch.randn(8, 5, 5),
        torch.randn(3, 8, 5, 5).double().to(memory_format=torch.channels_last),
    ],
    ids=["NCHW", "one image", "fp64"],
)
def test_other_images_stay(x: Tensor) -> None:
    graph = make_fx(lambda x: F.pixel_shuffle(x, 2), tracing_mode="fake")(x)
    assert not replace_pixel_shuffles(graph)
    assert torch.equal(graph(x), F.pixel_shuffle(x, 2))
