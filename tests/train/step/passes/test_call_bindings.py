"""The bindings in a recorded step do what its operators do: the same results, and views where those give views."""

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from fastvae.train.step.passes.call_bindings import call_bindings


def function(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    turned = torch.ops.aten.permute.default(torch.ops.aten.transpose.int(x.t(), 0, 1), [1, 0])
    flat = torch.ops.aten.reshape.default(x, [-1]).view(2, -1)
    sums = torch.stack([flat + y, torch.add(flat, y, alpha=3), flat - y, flat * y, flat / y])
    return torch.cat([sums, sums], dim=1), flat, turned


def test_results_and_views_are_the_same() -> None:
    x, y = torch.randn(4, 6), torch.randn(())
    graph = make_fx(function)(x, y)
    call_bindings(graph)
    graph.recompile()
    methods = {node.target for node in graph.graph.nodes if node.op == "call_method"}
    assert methods >= {"t", "transpose", "permute", "view"}
    functions = {node.target for node in graph.graph.nodes if node.op == "call_function"}
    assert functions >= {torch.add, torch.sub, torch.mul, torch.div, torch.stack, torch.cat}
    for ours, theirs in zip(graph(x, y), function(x, y), strict=True):
        assert torch.equal(ours, theirs)
        assert ours.stride() == theirs.stride()
    _, _, turned = graph(x, y)
    assert turned.data_ptr() == x.data_ptr()


def test_other_operators_stay() -> None:
    graph = make_fx(lambda x: x.exp().add(1))(torch.ones(2))
    call_bindings(graph)
    graph.recompile()
    assert graph.graph.find_nodes(op="call_function", target=torch.ops.aten.exp.default)
    assert torch.equal(graph(torch.zeros(2)), torch.full((2,), 2.0))
