"""Copies that nothing can tell from their source are left out of a recorded step; no other is."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from fastvae.train.step.passes.common import propagate_strides
from fastvae.train.step.passes.drop_copies import drop_copies

aten = torch.ops.aten
X = torch.randn(4, 6)


def copies_left(function: Callable[[Tensor], object]) -> int:
    """Return the copies in a recorded function of ``X`` after the pass, which leaves its results alone."""
    graph = make_fx(function, tracing_mode="fake")(X.clone())
    for cast in graph.graph.find_nodes(op="call_function", target=aten._to_copy.default):
        cast.kwargs = {"dtype": torch.float32}  # as a pass leaves it that has changed the type of what it converts
    graph.recompile()
    propagate_strides(graph)
    expected = graph(X.clone())
    drop_copies(graph)
    graph.recompile()
    torch.testing.assert_close(graph(X.clone()), expected, rtol=0, atol=0)
    return sum(node.target in (aten._to_copy.default, aten.clone.default) for node in graph.graph.nodes)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.sin().double() * 2,
        lambda x: x.sin().clone().add_(1),
        lambda x: x.sin().view(24).clone(),
        lambda x: x.max(dim=1).values.clone(),
    ],
    ids=["cast to its own type", "written later", "of a view", "one of several results"],
)
def test_of_a_tensor_that_nothing_else_reads(function: Callable[[Tensor], object]) -> None:
    assert copies_left(function) == 0


def source_read_again(x: Tensor) -> tuple[Tensor, Tensor]:
    y = x.sin()
    return y.clone().add_(1), y


def view_read_again(x: Tensor) -> tuple[Tensor, Tensor]:
    y = x.sin()
    view = y.view(24)
    return view.clone().add_(1), y


def part_of_a_split(x: Tensor) -> tuple[Tensor, Tensor]:
    left, right = x.split(3, dim=1)
    return left.clone().add_(1), right


@pytest.mark.parametrize(
    "function",
    [
        source_read_again,
        view_read_again,
        part_of_a_split,
        lambda x: x.clone().add_(1),
        lambda x: x.sin().t().clone(memory_format=torch.contiguous_format),
    ],
    ids=["source read again", "view read again", "part of a split", "an input", "another layout"],
)
def test_others_stay(function: Callable[[Tensor], object]) -> None:
    assert copies_left(function) == 1
