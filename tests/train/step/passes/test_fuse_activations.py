"""Activations of a recorded step in place, and their gradients in one pass with those of the biases."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from fastvae import backends
from fastvae.models import build
from fastvae.ops.internal.bias_gradient import bias_gradient_
from fastvae.train.config import Execution, Precision, TrainConfig, resolve
from fastvae.train.distributed.world import World
from fastvae.train.engine import Engine
from fastvae.train.step.passes.batch_matmuls import batch_matmuls
from fastvae.train.step.passes.common import onednn_is_faster
from fastvae.train.step.passes.fuse_activations import fuse_activations

aten = torch.ops.aten
linear_pointwise = torch.ops.mkldnn._linear_pointwise.default
needs_native = pytest.mark.skipif(not backends.has_native(), reason="the C++ extension is not built: run `make setup`")
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
each_slope = pytest.mark.parametrize("slope", [0.0, 0.2, 0.01], ids=["relu", "leaky", "torch's own"])


def activated(x: Tensor, slope: float) -> Tensor:
    return nn.functional.leaky_relu(x, slope) if slope else x.relu()


def inputs(dtype: torch.dtype) -> list[Tensor]:
    return [torch.randn(shape).to(dtype) for shape in ((33, 40), (48, 40), (48,), (48, 48))]


def gradients(slope: float, before: Callable[[Tensor], Tensor] | None = None) -> Callable[..., list[Tensor]]:
    """Of a layer, its activation and another layer; and what is made of what comes before the activation."""

    def function(x: Tensor, weight: Tensor, bias: Tensor, last: Tensor) -> list[Tensor]:
        weights = [tensor.detach().requires_grad_() for tensor in (weight, bias, last)]
        first = nn.functional.linear(x, *weights[:2])
        output = nn.functional.linear(activated(first, slope), weights[2])
        with torch.no_grad():
            others = [] if before is None else [before(first)]
        return [output.detach(), *others, *torch.autograd.grad(output.square().sum(), weights)]

    return function


def joined(function: Callable[..., list[Tensor]], *tensors: Tensor) -> tuple[GraphModule, GraphModule]:
    """The recorded function, as it is and after."""
    graphs = []
    for join in (lambda _: None, fuse_activations):
        graph = make_fx(function, tracing_mode="fake", _allow_non_fake_inputs=True)(*tensors)
        batch_matmuls(graph, fused=False)
        graph.graph.eliminate_dead_code()
        join(graph)
        graph.recompile()
        graphs.append(graph)
    return graphs[0], graphs[1]


def count(graph: GraphModule, *targets: object) -> int:
    return sum(node.target in targets for node in graph.graph.nodes)


FORWARDS, FORWARDS_IN_PLACE = (
    (aten.relu.default, aten.leaky_relu.default),
    (aten.relu_.default, aten.leaky_relu_.default),
)
BACKWARDS = (aten.threshold_backward.default, aten.leaky_relu_backward.default)
SUMS = (aten.sum.dim_IntList,)


def assert_same_sums(one: Tensor, other: Tensor) -> None:
    """Compare sums whose terms, of both signs, are added in another order: small ones are as far off as large ones."""
    rtol = torch.finfo(one.dtype).eps * 10
    torch.testing.assert_close(one, other, rtol=rtol, atol=rtol * other.abs().max().item())


@needs_native
@each_dtype
@each_slope
def test_a_layers_activation_is_joined_and_gives_the_same_numbers(slope: float, dtype: torch.dtype) -> None:
    tensors = inputs(dtype)
    plain, graph = joined(gradients(slope), *tensors)
    assert count(plain, *FORWARDS) == count(plain, *BACKWARDS) == count(plain, *SUMS) == 1
    assert count(graph, *FORWARDS, *BACKWARDS, *SUMS) == 0
    assert count(graph, *FORWARDS_IN_PLACE) == count(graph, bias_gradient_) == 1
    output, weight, bias, last = graph(*tensors)
    expected, of_weight, of_bias, of_last = plain(*tensors)  # its inputs are as they were
    assert torch.equal(output, expected)
    assert torch.equal(weight, of_weight)
    assert torch.equal(last, of_last)
    assert_same_sums(bias, of_bias)


@needs_native
@each_slope
@pytest.mark.parametrize("before", [torch.neg, torch.t], ids=["read", "viewed"])
def test_what_something_else_reads_is_not_written(before: Callable[[Tensor], Tensor], slope: float) -> None:
    tensors = inputs(torch.float32)
    plain, graph = joined(gradients(slope, before), *tensors)
    assert count(graph, *FORWARDS) == count(graph, bias_gradient_) == 1
    for one, other in zip(graph(*tensors), plain(*tensors), strict=True):
        assert_same_sums(one, other)


@needs_native
@each_slope
def test_a_gradient_that_something_else_reads_is_summed_alone(slope: float) -> None:
    def function(x: Tensor, gradient: Tensor, other: Tensor) -> list[Tensor]:
        x, bias = x.detach().requires_grad_(), x[0].detach().requires_grad_()
        incoming = gradient @ other
        output = activated(x + bias, slope)
        return [incoming, *torch.autograd.grad(output, [x, bias], incoming)]

    tensors = [torch.randn(30, 20), torch.randn(30, 10), torch.randn(10, 20)]
    plain, graph = joined(function, *tensors)
    assert count(graph, *BACKWARDS) == count(graph, bias_gradient_) == 1
    for one, other in zip(graph(*tensors), plain(*tensors), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.sum(0),
        lambda x: x.sum(1, keepdim=True).view(-1),
        lambda x: x.sum(0, keepdim=True) + 1,
        lambda x: x.sum(0, keepdim=True, dtype=torch.float64).view(-1),
        lambda x: x.t().sum(0, keepdim=True).view(-1),
        lambda x: x.double().sum(0, keepdim=True).view(-1),
        lambda x: x.view(4, 2, 3).sum(0, keepdim=True).view(2, 3),
        lambda x: nn.functional.leaky_relu(x, 0.1) * nn.functional.relu(x),
        lambda x: nn.functional.leaky_relu(x @ x.t(), -0.1),
    ],
)
def test_other_sums_and_activations_stay(function: Callable[[Tensor], Tensor]) -> None:
    plain, graph = joined(lambda x: [function(x)], torch.randn(4, 6))
    assert graph.code == plain.code


def test_all_stays_where_the_extension_is_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "has_native", lambda: False)
    plain, graph = joined(gradients(0.2), *inputs(torch.float32))
    assert graph.code == plain.code


@needs_native
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("preset", ["leaky", "classic", "gaussian"])
def test_a_step_has_the_gradients_of_autograd(
    preset: str, precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs: list[GraphModule] = []

    def keep(graph: GraphModule) -> None:
        fuse_activations(graph)
        graphs.append(graph)

    def step(execution: Execution) -> tuple[Tensor, list[Tensor]]:
        torch.manual_seed(0)
        config = resolve(TrainConfig(preset=preset, precision=precision, execution=execution))
        engine = Engine(build(config.recipe, (1, 8, 8)), config, World(0, 0, 1, torch.device("cpu")))
        images = torch.randint(0, 256, (50, 1, 8, 8), dtype=torch.uint8)
        return engine._step(images, engine.counter.state, 0, engine._scalars)

    sums, expected = step("eager")
    monkeypatch.setattr("fastvae.train.step.recording.record.fuse_activations", keep)
    traced_sums, traced = step("traced")
    (graph,) = graphs
    assert count(graph, *SUMS, *BACKWARDS, *FORWARDS) == 0
    # A sum for each layer, and an activation in place behind each but the heads and the last.
    layers = sum(gradient.dim() == 1 for gradient in traced)
    assert count(graph, bias_gradient_) == layers
    assert count(graph, *FORWARDS_IN_PLACE) == layers - 3
    torch.testing.assert_close(traced_sums, sums, rtol=1e-3, atol=0)
    for one, other in zip(traced, expected, strict=True):
        error = (one.double() - other.double()).norm() / other.double().norm()
        assert error < (1e-5 if precision == "fp32" else 2e-2)


def test_a_compiler_gets_the_activations_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: GraphModule) -> None:
        raise AssertionError

    monkeypatch.setattr("fastvae.train.step.recording.record.fuse_activations", refuse)
    monkeypatch.setattr("fastvae.train.step.recording.record._compiled", lambda graph, _: graph)
    config = resolve(TrainConfig(precision="fp32", execution="compiled"))
    engine = Engine(build(config.recipe, (1, 8, 8)), config, World(0, 0, 1, torch.device("cpu")))
    engine._step(torch.zeros(5, 1, 8, 8, dtype=torch.uint8), engine.counter.state, 0, engine._scalars)


@needs_native
@pytest.mark.skipif(
    not onednn_is_faster(torch.bfloat16), reason="this torch or processor has no products of oneDNN in bf16"
)
@each_slope
def test_a_large_product_applies_its_activation(slope: float) -> None:
    """1024 x 400 x 400 is above what fastvae multiplies itself."""
    shapes = ((1024, 400), (400, 400), (400,))
    tensors = [(torch.randn(shape) / 20).bfloat16() for shape in shapes]
    plain, joint = joined(lambda x, weight, bias: [activated(nn.functional.linear(x, weight, bias), slope)], *tensors)
    assert count(joint, linear_pointwise) == 1
    assert count(joint, aten.addmm.default, aten.t.default, *FORWARDS, *FORWARDS_IN_PLACE) == 0
    exact = activated(nn.functional.linear(*(tensor.double() for tensor in tensors)), slope)
    errors = [(graph(*tensors)[0].double() - exact).abs().max().item() for graph in (joint, plain)]
    assert errors[0] <= errors[1]  # it is rounded once, not twice


@needs_native
def test_a_product_that_something_else_reads_keeps_its_activation_apart() -> None:
    def function(x: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
        product = nn.functional.linear(x, weight, bias)
        return [product, product.relu()]

    _, same = joined(function, *(torch.zeros(shape).bfloat16() for shape in ((1024, 400), (400, 400), (400,))))
    assert count(same, linear_pointwise) == 0
