"""Factors of one are taken out of a recorded step, others stay."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from fastvae import ops
from fastvae.train.step.execution import Step
from fastvae.train.step.loss import StepScalars
from fastvae.train.step.passes.drop_ones import drop_ones


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


class Toy(nn.Module):
    """Somebody's own ones: written to through a view, or multiplied into what is then written to."""

    def __init__(self, way):
        super().__init__()
        self.way, self.p = way, nn.Parameter(torch.tensor([1.0, 2.0, 3.0, 4.0]))

    def forward(self, images, state, row, stream, dials):
        x = images * self.p
        if self.way == "a mask":
            mask = torch.ones_like(x)
            mask[:, :2] = 0
            x = x * mask
        elif self.way == "a copy":
            y = images * torch.ones_like(images)
            y += 1
            x = x * y * images
        elif self.way == "a number":
            total, factor = x.sum(), torch.ones_like(x.sum())
            product = total.detach() * factor
            product += 1
            factor.view(1).fill_(3.0)
            x = x * factor * total + product
        else:
            x = (torch.ones_like(x) * x.t().contiguous().t()).reshape(-1)
        s = x.sum()
        return s * dials.weight, torch.stack((s, s, s)).detach()


@pytest.mark.parametrize("way", ["a mask", "a copy", "a number", "other strides"])
def test_a_models_own_ones_stay(way):
    one, found = torch.ones(()), []
    for execution in ("eager", "traced"):
        images = torch.arange(8.0).view(2, 4)
        sums, gradients = Step(Toy(way), execution, nullcontext)(
            images, torch.tensor([0, 0]), 0, StepScalars(one, one, one)
        )
        assert torch.equal(images, torch.arange(8.0).view(2, 4))
        found.append((sums, *gradients))
    for eager, traced in zip(*found, strict=True):
        assert torch.equal(eager, traced)
