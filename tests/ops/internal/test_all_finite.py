"""One number in any place decides; the largest finite ones do not."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastvae.ops import _library
from fastvae.ops.internal.all_finite import all_finite

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
BAD = [float("inf"), -float("inf"), float("nan"), -float("nan")]


@pytest.fixture(params=["native", "reference"], autouse=True)
def backend(request, monkeypatch):
    if request.param == "reference":
        monkeypatch.setattr(_library, "has_native", lambda: False)
    elif not _library.has_native():
        pytest.skip("the extension is not built")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_largest_and_the_smallest_are_finite(dtype):
    info = torch.finfo(dtype)
    values = torch.tensor([info.max, info.min, info.tiny, info.smallest_normal / 2, 0.0, -0.0], dtype=dtype)
    assert all_finite([values.repeat(50)])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bad", BAD, ids=str)
def test_one_number_anywhere_is_found(dtype, bad):
    @settings(max_examples=30, deadline=None)
    @given(sizes=st.lists(st.integers(0, 100), min_size=1, max_size=5), place=st.integers(0), strided=st.booleans())
    def check(sizes, place, strided):
        tensors = [torch.ones(size, 2 if strided else 1, dtype=dtype)[:, 0] for size in sizes]
        assert all_finite(tensors)
        filled = [tensor for tensor in tensors if len(tensor)]
        if filled:
            chosen = filled[place % len(filled)]
            chosen[place % len(chosen)] = bad
            assert not all_finite(tensors)

    check()


@pytest.mark.parametrize("place", [0, 65_535, 65_536, 199_999, 200_000, 499_999])
def test_threads_find_it_too(place):
    tensors = [torch.ones(500, 400), torch.ones(300_000)]
    assert all_finite(tensors)
    (tensors[0].view(-1) if place < 200_000 else tensors[1][-200_000:])[place % 200_000] = torch.nan
    assert not all_finite(tensors)


def test_transposed_and_empty():
    matrix = torch.ones(3, 70)
    assert all_finite([matrix.t(), torch.ones(0, 4)])
    assert all_finite([])
    matrix[2, 69] = torch.inf
    assert not all_finite([matrix.t(), torch.ones(0, 4)])


@pytest.mark.parametrize("tensor", [torch.ones(2, dtype=torch.int64), torch.ones(2, device="meta")], ids=str)
def test_other_tensors_are_refused(tensor):
    with pytest.raises(TypeError, match=r"^tensor 1 is torch\.(int64 on cpu|float32 on meta), .* use tensor\.isfinite"):
        all_finite([torch.ones(1), tensor])
