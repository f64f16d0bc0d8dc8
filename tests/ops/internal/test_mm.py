"""fastvae's products of matrices against exact ones, within what rounding allows."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fastvae.ops import _library
from fastvae.ops.internal.mm import mm, mm_of_lists

# With the backend's name in theirs, the tests are among those that the sanitizers run.
pytestmark = [pytest.mark.usefixtures("backend"), pytest.mark.parametrize("backend", ["native"], indirect=True)]

needs_bf16 = pytest.mark.skipif(not _library.multiplies_bf16(), reason="needs a CPU with AVX-512 BF16")
needs_native = pytest.mark.skipif(not _library.has_native(), reason="needs the C++ extension")
TYPES = [
    pytest.param(torch.bfloat16, marks=needs_bf16, id="bf16"),
    pytest.param(torch.float32, marks=needs_native, id="fp32"),
    pytest.param(torch.float64, marks=needs_native, id="fp64"),
]
of_each_type = pytest.mark.parametrize("dtype", TYPES)
# Near the sizes of a register, a tile and a pair. LARGE ones are shared between threads and packed in blocks.
SIZES = (1, 2, 3, 5, 6, 7, 13, 14, 15, 16, 17, 27, 28, 29, 31, 32, 33, 57)
LARGE = [(100, 784, 400), (400, 100, 784), (300, 1001, 90), (1, 4097, 300), (1200, 1024, 40)]


def draw(rows: int, columns: int, layout: str = "rows", dtype: torch.dtype = torch.bfloat16) -> Tensor:
    if layout == "columns":
        return draw(columns, rows, "part", dtype).t()
    # A NaN beside the matrix would show in any sum that read it.
    around = torch.full((3 * rows + 3, 2 * columns + 5), torch.nan, dtype=dtype)
    if layout == "spread":
        matrix = around[: 3 * rows : 3, : 2 * columns : 2]
    elif layout == "part":
        matrix = around[1 : 1 + rows, 3 : 3 + columns]
    else:
        matrix = torch.empty(rows, columns, dtype=dtype)
    return matrix.copy_(torch.randn(rows, columns))


LAYOUTS = ("rows", "columns", "spread", "part")


def assert_accurate(product: Tensor, left: Tensor, right: Tensor, bias: Tensor | None) -> None:
    """Each sum rounds all that it has so far; those of bf16 are of fp32, and rounded to its 8 bits at the end.

    fp64 is compared with itself, so that both may be off.
    """
    unit, last = {
        torch.bfloat16: (2.0**-24, 2.0**-8), torch.float32: (2.0**-24, 2.0**-24), torch.float64: (2.0**-52, 2.0**-52),
    }[product.dtype]  # fmt: skip
    left = left.double()
    right = right.double()
    truth = left @ right
    most = left.abs() @ right.abs()
    if bias is not None:
        truth = truth + bias.double()
        most = most + bias.double().abs()
    # Without fused multiply-adds, each product is rounded as well.
    roundings = (left.shape[1] + 1) * (2 if _library.capability() == "default" else 1)
    assert product.shape == truth.shape
    assert product.is_contiguous()
    assert ((product.double() - truth).abs() <= truth.abs() * last + 1.01 * most * roundings * unit).all()


@of_each_type
@given(
    shape=st.tuples(*(st.sampled_from(SIZES),) * 3),
    layouts=st.tuples(*(st.sampled_from(LAYOUTS),) * 2),
    biased=st.booleans(),
)
def test_every_shape_and_layout(
    dtype: torch.dtype, shape: tuple[int, int, int], layouts: tuple[str, str], biased: bool
) -> None:
    rows, depth, columns = shape
    left = draw(rows, depth, layouts[0], dtype)
    right = draw(depth, columns, layouts[1], dtype)
    bias = draw(1, columns, dtype=dtype)[0] if biased else None
    assert_accurate(mm(left, right, bias), left, right, bias)


@of_each_type
@pytest.mark.parametrize("layouts", [("rows", "columns"), ("rows", "rows"), ("columns", "rows")], ids="-".join)
@pytest.mark.parametrize("shape", LARGE, ids=str)
def test_large_ones(dtype: torch.dtype, shape: tuple[int, int, int], layouts: tuple[str, str]) -> None:
    rows, depth, columns = shape
    left = draw(rows, depth, layouts[0], dtype)
    right = draw(depth, columns, layouts[1], dtype)
    bias = draw(1, columns, dtype=dtype)[0]
    assert_accurate(mm(left, right, bias), left, right, bias)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@of_each_type
@pytest.mark.usefixtures("threads")
def test_an_element_depends_on_its_row_and_its_column_alone(dtype: torch.dtype) -> None:
    left = draw(300, 1001, dtype=dtype)
    right = draw(1001, 90, dtype=dtype)
    whole = mm(left, right)
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        assert torch.equal(mm(left, right), whole)
    assert torch.equal(mm(left[7:12], right), whole[7:12])
    assert torch.equal(mm(left, right[:, 33:34]), whole[:, 33:34])
    assert torch.equal(mm(left.t().contiguous().t(), right.t().contiguous().t()), whole)


@of_each_type
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_products_at_once_are_those_one_by_one(dtype: torch.dtype, count: int) -> None:
    shapes = [(100, 784, 40), (0, 5, 7), (30, 1001, 90), (3, 0, 20), (5, 9, 0), (200, 50, 100)]
    lefts = [draw(rows, depth, "part", dtype) for rows, depth, _ in shapes]
    rights = [draw(depth, columns, "columns", dtype) for _, depth, columns in shapes]
    biases = [draw(1, columns, dtype=dtype)[0] for *_, columns in shapes]
    torch.set_num_threads(count)
    for with_biases in (biases, []):
        together = mm_of_lists(lefts, rights, with_biases)
        for k, product in enumerate(together):
            bias = with_biases[k] if with_biases else None
            assert torch.equal(product, mm(lefts[k], rights[k], bias))
            assert_accurate(product, lefts[k], rights[k], bias)


@pytest.mark.slow
@needs_bf16
@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="AddressSanitizer ends where memory does")
def test_nothing_is_lost_when_memory_runs_out() -> None:
    program = """if True:
        import resource, torch
        from fastvae.ops.internal.mm import mm, mm_of_lists
        small, one = torch.ones(4, 64).bfloat16(), torch.ones(1, 1).bfloat16()
        mm(small, small.t())
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 28),) * 2)
        try:
            mm(one.expand(1, 1 << 27), one.expand(1 << 27, 1))
            raise SystemExit("there was enough")
        except RuntimeError as error:
            print("out of memory:", error)
        print(mm(small, small.t())[0, 0].item())
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("out of memory:")
    assert done.stdout.splitlines()[-1] == "64.0"


@needs_bf16
def test_subnormal_numbers_are_zeros() -> None:
    tiny = torch.full((1, 1), 1e-40).bfloat16()
    inf = torch.full((1, 1), torch.inf).bfloat16()
    assert mm(inf, tiny).isnan()
    assert mm(tiny, tiny, tiny[0]).item() == 0.0


@of_each_type
@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 4, 0), (0, 0, 0)], ids=str)
def test_nothing_to_multiply(dtype: torch.dtype, shape: tuple[int, int, int]) -> None:
    rows, depth, columns = shape
    assert mm(draw(rows, depth, dtype=dtype), draw(depth, columns, dtype=dtype)).shape == (rows, columns)


@of_each_type
def test_an_empty_sum_is_the_bias(dtype: torch.dtype) -> None:
    bias = draw(1, 20, dtype=dtype)[0]
    left = draw(3, 0, dtype=dtype)
    right = draw(0, 20, dtype=dtype)
    assert torch.equal(mm(left, right, bias), bias.expand(3, 20))
    assert not mm(left, right).any()


@of_each_type
@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_what_is_not_finite_comes_through(dtype: torch.dtype, value: float) -> None:
    left = draw(30, 40, dtype=dtype)
    right = draw(40, 20, dtype=dtype).abs()
    left[17, 39] = value
    product = mm(left, right)
    expected = torch.full((20,), value, dtype=dtype)
    assert torch.equal(product[17].nan_to_num(nan=3.0), expected.nan_to_num(nan=3.0))
    assert product[:17].isfinite().all()
    assert product[18:].isfinite().all()


@of_each_type
def test_wrong_arguments_are_told(dtype: torch.dtype) -> None:
    x = draw(3, 4, dtype=dtype)
    with pytest.raises(TypeError, match=r"left is torch\.float16, not bf16, fp32 or fp64: use torch\.addmm"):
        mm(x.half(), x.t())
    with pytest.raises(TypeError, match=rf"right is torch\.float16 on cpu, not {dtype} on the CPU as left is: use"):
        mm(x, x.t().half())
    with pytest.raises(TypeError, match=rf"right is {dtype} on meta"):
        mm(x, x.t().to("meta"))
    with pytest.raises(ValueError, match=r"right has shape \(4,\), but must have 2 dimensions"):
        mm(x, x[0])
    with pytest.raises(ValueError, match=r"left has shape \(3, 4\), right \(3, 4\): the columns of the one"):
        mm(x, x)
    with pytest.raises(ValueError, match=r"bias has 4 numbers, but right has 3 columns: pass one for each"):
        mm(x, x.t(), x[0])
    with pytest.raises(ValueError, match=r"right requires grad, but mm has no derivative"):
        mm(x, x.t().requires_grad_())


def test_a_machine_without_the_instructions_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_library, "multiplies_bf16", lambda: False)
    with pytest.raises(ValueError, match=r"a CPU with AVX-512 BF16: use torch\.addmm"):
        mm(draw(3, 4), draw(4, 3))
    monkeypatch.setattr(_library, "has_native", lambda: False)
    with pytest.raises(ValueError, match=r"needs the built C\+\+ extension: use torch\.addmm"):
        mm(draw(3, 4, dtype=torch.float32), draw(4, 3, dtype=torch.float32))


@of_each_type
def test_matrices_of_two_types_are_refused_by_the_operator_too(dtype: torch.dtype) -> None:
    x = draw(3, 4, dtype=dtype)
    with pytest.raises(RuntimeError, match="expected matrices of one dtype"):
        mm_of_lists([x], [x.t().half()], [])
    with pytest.raises(RuntimeError, match="bf16, fp32 or fp64"):
        mm_of_lists([x.half()], [x.t().half()], [])
