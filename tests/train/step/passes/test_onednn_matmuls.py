"""Which fp32 products of a recorded step are oneDNN's, and that they are the same products."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from fastvae import backends
from fastvae.ops.internal.onednn_linear import onednn_linear
from fastvae.train.step.passes.common import linear_pointwise, onednn_is_faster
from fastvae.train.step.passes.onednn_matmuls import onednn_matmuls

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="needs a torch with oneDNN")


@pytest.fixture(autouse=True)
def _amd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "is_amd", lambda: True)


def recorded(function: Callable[..., Tensor], *inputs: Tensor, fused: bool = False) -> GraphModule:
    graph = make_fx(function, tracing_mode="fake")(*inputs)
    onednn_matmuls(graph, fused=fused)
    graph.recompile()
    return graph


def count(graph: GraphModule) -> int:
    return len(graph.graph.find_nodes(op="call_function", target=linear_pointwise))


def layer(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    h = nn.functional.linear(x, weight, bias)
    return (h @ weight) @ x.t() @ x + h.t() @ x[:, :1] * 0 + h.sum()


def inputs(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Of -1, 0 and 1: sums are exact in any order."""
    return [torch.randint(-1, 2, shape).to(dtype) for shape in ((40, 40), (40, 40), (40,))]


def test_products_of_any_layout_are_the_same() -> None:
    tensors = inputs()
    graph = recorded(layer, *tensors)
    assert count(graph) == 5
    assert torch.equal(graph(*tensors), layer(*tensors))


def test_products_of_a_graph_to_compile_are_operators_that_inductor_leaves_alone() -> None:
    tensors = inputs()
    graph = recorded(layer, *tensors, fused=True)
    assert count(graph) == 0
    assert len(graph.graph.find_nodes(op="call_function", target=onednn_linear)) == 5
    compiled = torch._inductor.compile(graph, tensors)
    assert torch.equal(compiled(*tensors), layer(*tensors))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_stay(dtype: torch.dtype) -> None:
    assert count(recorded(layer, *inputs(dtype))) == 0


def test_a_sum_with_a_matrix_stays() -> None:
    x, weight, _ = inputs()
    assert count(recorded(torch.addmm, weight, x, weight)) == 0


@pytest.mark.parametrize("shapes", [((0, 4), (4, 3)), ((3, 0), (0, 4))], ids=str)
def test_empty_ones_stay(shapes: tuple[tuple[int, int], ...]) -> None:
    tensors = [torch.ones(shape) for shape in shapes]
    graph = recorded(torch.mm, *tensors)
    assert count(graph) == 0
    assert torch.equal(graph(*tensors), torch.mm(*tensors))


def test_they_stay_on_other_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "is_amd", lambda: False)
    assert not onednn_is_faster(torch.float32)
    assert count(recorded(layer, *inputs())) == 0
