"""The last layer and its nll in registers, against the reference in fp64."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from fastvae import reference
from fastvae.ops import _library
from fastvae.ops.internal.linear_bernoulli_nll_of_samples import (
    linear_bernoulli_nll_of_samples,
    pack_linear,
    supports,
)

# With the backend's name in theirs, the tests are among those that the sanitizers run.
pytestmark = [pytest.mark.usefixtures("backend"), pytest.mark.parametrize("backend", ["native"], indirect=True)]

DTYPES = [
    torch.float32,
    pytest.param(
        torch.bfloat16,
        marks=pytest.mark.skipif(not _library.multiplies_bf16(), reason="needs a CPU with AVX-512 BF16"),
    ),
]
# Pictures, samples, inputs, outputs: near the sizes of a tile, a block, a chunk and a strip.
SIZES = [(3, 1, 1, 1), (2, 5, 7, 95), (1, 167, 33, 97), (2, 169, 64, 96), (5, 70, 511, 200), (1, 340, 1027, 33)]


def inputs(pictures: int, samples: int, depth: int, outputs: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Return rows as a ReLU makes them, a layer, and pixels."""
    hidden = torch.randn(pictures * samples, depth).relu().to(dtype)
    weight = (torch.randn(outputs, depth) * 3 / depth**0.5).to(dtype)
    return hidden, weight, torch.randn(outputs).to(dtype), torch.rand(pictures, outputs)


def truth(hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor) -> Tensor:
    wide = target.double().repeat_interleave(len(hidden) // max(1, len(target)), 0)
    offset = None if bias is None else bias.double()
    return reference.linear_bernoulli_nll(hidden.double(), weight.double(), offset, wide, reduction="none")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_it_is_the_reference(sizes, dtype):
    hidden, weight, bias, target = inputs(*sizes, dtype)
    for offset in (bias, None):
        found = linear_bernoulli_nll_of_samples(hidden, pack_linear(weight, offset, dtype), target)
        # Sums of products of `depth` terms, and of `outputs` losses: each rounds to fp32.
        torch.testing.assert_close(found.double(), truth(hidden, weight, offset, target), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_bits_on_any_number_of_threads(dtype):
    hidden, weight, bias, target = inputs(4, 500, 100, 130, dtype)
    layer = pack_linear(weight, bias, dtype)
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(linear_bernoulli_nll_of_samples(hidden, layer, target))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)


def test_a_row_depends_on_itself_alone_in_fp32():
    hidden, weight, bias, target = inputs(1, 400, 100, 130, torch.float32)
    hidden[:, ::3] = 0
    layer = pack_linear(weight, bias, torch.float32)
    whole = linear_bernoulli_nll_of_samples(hidden, layer, target)
    assert torch.equal(whole[37:50], linear_bernoulli_nll_of_samples(hidden[37:50], layer, target))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_what_is_not_finite_is_not_skipped(dtype, value):
    hidden, weight, bias, target = inputs(1, 20, 8, 10, dtype)
    hidden[:, 3] = 0
    weight[2, 3] = value  # 0 * inf is NaN
    assert linear_bernoulli_nll_of_samples(hidden, pack_linear(weight, bias, dtype), target).isnan().all()
    hidden, weight, bias, target = inputs(1, 20, 8, 10, dtype)
    hidden[7, 3] = value
    found = linear_bernoulli_nll_of_samples(hidden, pack_linear(weight, bias, dtype), target)
    assert (~found.isfinite()).tolist() == [row == 7 for row in range(20)]


def test_nothing_at_all():
    layer = pack_linear(torch.randn(5, 4), None, torch.float32)
    assert linear_bernoulli_nll_of_samples(torch.zeros(0, 4), layer, torch.zeros(0, 5)).shape == (0,)
    assert linear_bernoulli_nll_of_samples(torch.zeros(0, 4), layer, torch.zeros(3, 5)).shape == (0,)
    none = pack_linear(torch.zeros(5, 0), torch.zeros(5), torch.float32)
    found = linear_bernoulli_nll_of_samples(torch.zeros(2, 0), none, torch.zeros(1, 5))
    torch.testing.assert_close(found, torch.full((2,), 5 * torch.tensor(2.0).log().item()))


def test_what_does_not_fit_is_refused():
    hidden, weight, bias, target = inputs(2, 3, 4, 5, torch.float32)
    layer = pack_linear(weight, bias, torch.float32)
    with pytest.raises(ValueError, match="the layer has 4 inputs and 5 outputs"):
        linear_bernoulli_nll_of_samples(hidden[:, :3], layer, target)
    with pytest.raises(ValueError, match="5 rows are not as many for each of 2 pictures"):
        linear_bernoulli_nll_of_samples(hidden[:5], layer, target)
    with pytest.raises(TypeError, match="pack it again"):
        linear_bernoulli_nll_of_samples(hidden.bfloat16(), layer, target)
    with pytest.raises(TypeError, match="they need fp32 or bf16, and fp32"):
        linear_bernoulli_nll_of_samples(hidden.double(), layer, target)
    assert not supports(torch.device("cpu"), torch.float64)
    assert not supports(torch.device("cuda"), torch.float32)


@pytest.mark.parametrize("isa", ["avx2", "default"])
def test_other_instruction_sets_agree(isa, tmp_path, monkeypatch):
    hidden, weight, bias, target = inputs(2, 200, 100, 130, torch.float32)
    expected = linear_bernoulli_nll_of_samples(hidden, pack_linear(weight, bias, torch.float32), target)
    torch.save((hidden, weight, bias, target), tmp_path / "in.pt")
    program = (
        "import sys, torch\n"
        "from fastvae.ops.internal.linear_bernoulli_nll_of_samples import *\n"
        "hidden, weight, bias, target = torch.load(sys.argv[1])\n"
        "layer = pack_linear(weight, bias, torch.float32)\n"
        "torch.save(linear_bernoulli_nll_of_samples(hidden, layer, target), sys.argv[2])\n"
    )
    monkeypatch.setenv("FASTVAE_CPU_CAPABILITY", isa)
    files = [str(tmp_path / name) for name in ("in.pt", "out.pt")]
    subprocess.run([sys.executable, "-c", program, *files], check=True, capture_output=True)
    torch.testing.assert_close(torch.load(tmp_path / "out.pt"), expected, rtol=2e-6, atol=0)
