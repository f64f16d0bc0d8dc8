"""Which products of a recorded step are fastvae's."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from fastvae import backends
from fastvae.ops.internal.mm import mm_of_lists
from fastvae.train.step.passes.batch_matmuls import _LIMITS, batch_matmuls

needs_bf16 = pytest.mark.skipif(not backends.multiplies_bf16(), reason="needs a CPU with AVX-512 BF16")
needs_native = pytest.mark.skipif(not backends.has_native(), reason="needs the C++ extension")
TYPES = [
    pytest.param(torch.bfloat16, marks=needs_bf16, id="bf16"),
    pytest.param(torch.float32, marks=needs_native, id="fp32"),
    pytest.param(torch.float64, marks=needs_native, id="fp64"),
]
of_each_type = pytest.mark.parametrize("dtype", TYPES)
aten = torch.ops.aten


@pytest.fixture(autouse=True)
def _without_amx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)


def recorded(function: Callable[..., Tensor], *inputs: Tensor, fused: bool = False) -> GraphModule:
    graph = make_fx(function, tracing_mode="fake", _allow_non_fake_inputs=True)(*inputs)
    batch_matmuls(graph, fused=fused)
    graph.recompile()
    return graph


def products(graph: GraphModule) -> Counter[object]:
    names = Counter(node.target for node in graph.graph.nodes if node.op == "call_function")
    wanted = (aten.mm.default, aten.addmm.default, aten.add.Tensor, mm_of_lists)
    return Counter({name: count for name, count in names.items() if name in wanted})


def layer(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return nn.functional.linear(x, weight, bias).relu() @ weight


def inputs(dtype: torch.dtype, rows: int = 33, width: int = 48) -> list[Tensor]:
    """Of -1, 0 and 1: sums are exact, in any order and in 16 bits, until the last is rounded."""
    return [torch.randint(-1, 2, shape).to(dtype) for shape in ((rows, 40), (width, 40), (width,))]


def heads(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    first = nn.functional.linear(x, weight, bias)
    return first * nn.functional.linear(x, weight.neg(), bias)


@of_each_type
@pytest.mark.parametrize("fused", [False, True], ids=["listed", "fused"])
@pytest.mark.parametrize(("function", "calls", "biases"), [(layer, 2, 1), (heads, 1, 2)], ids=["layer", "heads"])
def test_small_products_are_its_own_and_those_that_need_not_wait_are_computed_at_once(
    function: Callable[..., Tensor], calls: int, biases: int, fused: bool, dtype: torch.dtype
) -> None:
    tensors = inputs(dtype)
    graph = recorded(function, *tensors, fused=fused)
    # What nobody fuses adds the bias within the product, and so do products of 32 and 64 bits.
    apart = {aten.add.Tensor: biases} if fused and dtype == torch.bfloat16 else {}
    assert products(graph) == Counter({mm_of_lists: calls, **apart})
    assert torch.equal(graph(*tensors), function(*tensors))


def gradients(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    weights = [weight.detach().requires_grad_(), weight.detach().requires_grad_()]
    loss = (nn.functional.linear(x, weights[0], bias).relu() @ weights[1]).sum()
    return torch.stack(torch.autograd.grad(loss, weights))


@of_each_type
def test_the_products_of_a_layers_backward_are_computed_at_once(dtype: torch.dtype) -> None:
    tensors = inputs(dtype)
    graph = recorded(gradients, *tensors)
    # The forward of both layers, the two of the second one's backward, and the first one's.
    assert [len(node.args[0]) for node in graph.graph.find_nodes(op="call_function", target=mm_of_lists)] == [
        1,
        1,
        2,
        1,
    ]
    assert torch.equal(graph(*tensors), gradients(*tensors))


def overwrites(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    x = x.clone()
    first = x @ weight.t()
    x.mul_(2)
    return first - x @ weight.t()


@of_each_type
def test_a_product_does_not_wait_while_what_it_reads_is_written(dtype: torch.dtype) -> None:
    tensors = inputs(dtype)
    graph = recorded(overwrites, *tensors)
    assert products(graph) == Counter({mm_of_lists: 2})
    assert torch.equal(graph(*tensors), overwrites(*tensors))


ONES = torch.ones(96, dtype=torch.bfloat16)


@needs_bf16
@pytest.mark.parametrize(
    "other",
    [ONES[:48].view(1, 48), ONES[:48].expand(33, 48), ONES[:33].view(33, 1), ONES[0], ONES[:1].expand(48), ONES[::2]],
    ids=lambda other: f"{tuple(other.shape)} by {other.stride()}",
)
def test_a_sum_with_what_is_no_dense_bias_stays(other: Tensor) -> None:
    x, weight, _ = inputs(torch.bfloat16)
    graph = recorded(lambda x, weight, other: torch.addmm(other, x, weight.t()), x, weight, other)
    assert products(graph) == Counter({aten.addmm.default: 1})


def test_other_types_stay() -> None:
    graph = recorded(layer, *inputs(torch.float16))
    assert products(graph) == Counter({aten.addmm.default: 1, aten.mm.default: 1})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_large_products_stay(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_LIMITS, dtype, (33 * 40 * 48 - 1, 1 << 10))
    graph = recorded(layer, *inputs(dtype))
    assert products(graph) == Counter({aten.addmm.default: 1, aten.mm.default: 1})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_deep_products_stay(dtype: torch.dtype) -> None:
    x = torch.ones(1, 20_000, dtype=dtype)
    weight = torch.ones(20_000, 1, dtype=dtype)
    assert products(recorded(lambda x, weight: x @ weight, x, weight)) == Counter({aten.mm.default: 1})


def test_a_product_of_one_type_does_not_join_those_of_another() -> None:
    def both(x: Tensor, weight: Tensor) -> Tensor:
        return x @ weight + (x.double() @ weight.double()).float()

    x, weight, _ = inputs(torch.float32)
    graph = recorded(both, x, weight.t().contiguous())
    assert products(graph)[mm_of_lists] == (2 if backends.has_native() else 0)
    assert torch.equal(graph(x, weight.t().contiguous()), both(x, weight.t()))


@pytest.mark.parametrize("means", ["neither", "amx"])
def test_they_stay_where_the_machine_multiplies_by_other_means(means: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if means == "amx":
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    else:
        monkeypatch.setattr(backends, "multiplies_bf16", lambda: False)
    graph = recorded(layer, *inputs(torch.bfloat16))
    assert products(graph) == Counter({aten.addmm.default: 1, aten.mm.default: 1})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_compiler_gets_the_biases_of_16_bit_products_apart(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "multiplies_bf16", lambda: False)
    tensors = inputs(dtype)
    graph = recorded(layer, *tensors, fused=True)
    assert products(graph) == Counter({aten.mm.default: 2, aten.add.Tensor: 1})
    assert torch.equal(graph(*tensors), layer(*tensors))


def test_fp32_products_stay_without_the_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "has_native", lambda: False)
    graph = recorded(layer, *inputs(torch.float32), fused=True)
    assert products(graph) == Counter({aten.addmm.default: 1, aten.mm.default: 1})
