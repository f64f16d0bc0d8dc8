"""What the passes share."""

import pytest
import torch
from torch.fx import Graph

from fastvae.train.step.passes.common import is_dense_on_cpu, replace


def test_replace_moves_the_users_and_erases_the_node() -> None:
    graph = Graph()
    x = graph.placeholder("x")
    doubled = graph.call_function(torch.add, (x, x))
    graph.output(doubled)
    replace(graph, doubled, x)
    assert [node.op for node in graph.nodes] == ["placeholder", "output"]


@pytest.mark.parametrize(
    ("value", "dense"),
    [
        (torch.zeros(2, 3), True),
        (torch.zeros(3, 2).t(), False),
        (torch.zeros(2, 3, dtype=torch.float64), False),
        (torch.zeros(2, 3, device="meta"), False),
    ],
)
def test_dense_needs_the_device_the_type_and_the_strides(value: torch.Tensor, dense: bool) -> None:
    assert is_dense_on_cpu(value, torch.float32, torch.bfloat16) == dense


def test_dense_may_be_channels_last() -> None:
    images = torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last)
    assert is_dense_on_cpu(images, torch.float32, memory_format=torch.channels_last)
    assert not is_dense_on_cpu(images, torch.float32)
