"""Factors of one are taken out of a recorded step, others stay."""

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from fastvae import ops
from fastvae.train.ones import drop_ones


def recorded(factor):
    def function(logits, target, weight):
        leaf = logits.requires_grad_()
        loss = ops.bernoulli_nll(leaf, target, backend="auto", weight=weight)
        return torch.autograd.grad(loss * factor if factor != 1 else loss, leaf)[0]

    given = torch.randn(3, 5), torch.rand(3, 5), torch.tensor(2.0)
    graph = make_fx(function, tracing_mode="fake")(*given)
    drop_ones(graph)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph, function, given


def scales(graph):
    return [node for node in graph.graph.nodes if node.target is torch.ops.fastvae.scale_gradient_.default]


def test_the_gradient_of_a_loss_in_itself_is_dropped():
    graph, function, given = recorded(1)
    assert not scales(graph)
    assert not graph.graph.find_nodes(op="call_function", target=torch.ops.aten.ones_like.default)
    assert torch.equal(graph(*given), function(*given))


def test_other_factors_stay():
    graph, function, given = recorded(3)
    assert torch.equal(graph(*given), function(*given))
    assert graph(*given).abs().sum() > 0
