"""The kernels' noise is the specification's: words and uniforms to the bit, normals to a few ulp."""

import fastvae.kernels._math as kernel_math
import fastvae.kernels._noise as kernel_noise
import pytest
import torch
import triton
import triton.language as tl

from fastvae.reference.noise import philox4x32, standard_normal, uniform

words = kernel_noise.words
normals = kernel_noise.normals
uniform_kernel = kernel_noise.uniform
pixel = kernel_math.pixel


@triton.jit
def _words(state, quad, out, uniforms, stream, n: tl.constexpr):
    i = tl.arange(0, n)
    w0, w1, w2, w3 = words(state, stream, tl.load(quad + i))
    tl.store(out + 4 * i, w0.to(tl.int64))
    tl.store(out + 4 * i + 1, w1.to(tl.int64))
    tl.store(out + 4 * i + 2, w2.to(tl.int64))
    tl.store(out + 4 * i + 3, w3.to(tl.int64))
    tl.store(uniforms + i, uniform_kernel(w0))


@triton.jit
def _normals(state, out, stream, first, tile: tl.constexpr, vector: tl.constexpr, dtype: tl.constexpr):
    eps = normals(state, stream, tl.cast(first, tl.int64), tile, vector, dtype)
    tl.store(out + tl.arange(0, tile)[:, None] * vector + tl.arange(0, vector)[None, :], eps)


@triton.jit
def _uniforms(word, out, n: tl.constexpr):
    i = tl.arange(0, n)
    tl.store(out + i, uniform_kernel(tl.load(word + i).to(tl.uint32)))


@triton.jit
def _pixels(x, out, dtype: tl.constexpr):
    i = tl.arange(0, 256)
    tl.store(out + i, pixel(tl.load(x + i), dtype))


@pytest.mark.parametrize(("seed", "step", "stream"), [(0, 0, 0), (2**63 - 1, 2**32 - 1, 2**31 - 1), (2**32 + 7, 11, 1)])
def test_words_equal_the_specification(seed: int, step: int, stream: int) -> None:
    quad = torch.cat([torch.arange(8), torch.tensor([2**32 - 1, 2**32, 2**40 + 3, 2**60, 5, 6, 7, 8])])
    out, uniforms = torch.empty(16, 4, dtype=torch.int64), torch.empty(16)
    _words[(1,)](torch.tensor([seed, step]), quad, out, uniforms, stream, n=16)
    low = 2**32 - 1
    counter = (quad & low, quad >> 32, torch.tensor(step), torch.tensor(stream))
    expected = torch.stack(
        torch.broadcast_tensors(*philox4x32(counter, (torch.tensor(seed & low), torch.tensor(seed >> 32)))), -1
    )
    assert torch.equal(out, expected)
    assert torch.equal(uniforms, uniform(expected[:, 0]))


def test_uniform_ends_and_ties() -> None:
    word = torch.tensor(
        [0, 1, 2, 2**24 + 1, 2**24 + 3, 2**31 - 1, 2**31, 2**32 - 129, 2**32 - 128, 2**32 - 127, 2**32 - 1]
    )
    word = torch.cat([word, torch.randint(0, 2**32, (53,), generator=torch.Generator().manual_seed(0))])
    out = torch.empty(64)
    _uniforms[(1,)](word, out, n=64)
    assert torch.equal(out, uniform(word))
    assert out.min() == 2**-33
    assert out.max() == 1


@pytest.mark.parametrize("vector", [4, 8])
@pytest.mark.parametrize(
    ("kind", "dtype", "bound"), [(tl.float32, torch.float32, 2e-6), (tl.float64, torch.float64, 1e-14)]
)
def test_normals(vector: int, kind: tl.dtype, dtype: torch.dtype, bound: float) -> None:
    state = torch.tensor([2**40 + 5, 3])
    first = 4 * 2**33
    out = torch.empty(1024 * vector, dtype=dtype)
    _normals[(1,)](state, out, 2, first, tile=1024, vector=vector, dtype=kind)
    expected = standard_normal(state, (out.numel() // 4, 4), row_offset=first // 4, stream=2, dtype=torch.float64)
    assert (out.double() - expected.flatten()).abs().max() < bound


@pytest.mark.parametrize(("kind", "dtype"), [(tl.float32, torch.float32), (tl.float64, torch.float64)])
def test_pixels_divide_by_255_to_the_bit(kind: tl.dtype, dtype: torch.dtype) -> None:
    x = torch.arange(256, dtype=torch.uint8)
    out = torch.empty(256, dtype=dtype)
    _pixels[(1,)](x, out, dtype=kind)
    assert torch.equal(out, x.to(dtype) / 255)
