"""The noise of the latent kernels: standard normals as a pure function of (seed, step, stream, global element).

fastvae/reference/noise.py is the specification. Words and uniforms are equal to it to the bit.
"""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from ._math import sincos_turns


class Noise(NamedTuple):
    """The noise arguments of a schema: an explicit ``eps``, or the key and the place of a draw."""

    eps: Tensor | None
    state: Tensor | None  # (2,) int64 [seed, step]
    row_offset: int
    stream: int


NO_NOISE = Noise(None, None, 0, 0)


@triton.jit
def words(state, stream, quad):
    """The four Philox4x32-10 words of each quad (int64, any shape). ``state``: (2,) int64, ``[seed, step]``."""
    seed = tl.load(state).to(tl.uint64)
    step = tl.load(state + 1).to(tl.uint32)
    low = quad.to(tl.uint32)
    high = (quad >> 32).to(tl.uint32)
    return tl.philox(seed, low, high, low * 0 + step, low * 0 + tl.cast(stream, tl.uint32))


@triton.jit
def uniform(word):
    """The uint32-to-uniform map: one rounding and one addition in fp32, exact with or without a fused multiply-add."""
    return word.to(tl.float32) * 2.3283064365386963e-10 + 1.1641532182693481e-10


@triton.jit
def _box_muller(radius_word, angle_word, dtype: tl.constexpr):
    radius = tl.sqrt(-2.0 * tl.log(uniform(radius_word).to(dtype)))
    sin, cos = sincos_turns(uniform(angle_word).to(dtype))
    return radius * cos, radius * sin


@triton.jit
def _lanes(state, stream, quad, dtype: tl.constexpr):
    w0, w1, w2, w3 = words(state, stream, quad)
    n0, n1 = _box_muller(w0, w1, dtype)
    n2, n3 = _box_muller(w2, w3, dtype)
    return n0, n1, n2, n3


@triton.jit
def _interleave(n0, n1, n2, n3, TILE: tl.constexpr, VECTOR: tl.constexpr):
    """Lanes of quads as a (TILE, VECTOR) tile. ``join`` stacks in the registers of one thread, and a vector is one or
    two whole quads of one thread, so the tile has the layout of the loads and nothing passes through shared memory.
    """
    return tl.reshape(tl.join(tl.join(n0, n2), tl.join(n1, n3)), (TILE, VECTOR))


@triton.jit
def normals(state, stream, first, TILE: tl.constexpr, VECTOR: tl.constexpr, dtype: tl.constexpr):
    """The (TILE, VECTOR) tile of noise from global element ``first`` (int64), which is the first of its quad.

    All four normals of each quad are used.
    """
    return quads(state, stream, first // 4 + tl.arange(0, TILE)[:, None] * (VECTOR // 4), TILE, VECTOR, dtype)


@triton.jit
def quads(state, stream, quad, TILE: tl.constexpr, VECTOR: tl.constexpr, dtype: tl.constexpr):
    """A tile of noise whose vectors start at any quads, (TILE, 1) int64."""
    n0, n1, n2, n3 = _lanes(state, stream, quad, dtype)
    if VECTOR == 8:
        m0, m1, m2, m3 = _lanes(state, stream, quad + 1, dtype)
        n0, n1, n2, n3 = tl.join(n0, m0), tl.join(n1, m1), tl.join(n2, m2), tl.join(n3, m3)
    return _interleave(n0, n1, n2, n3, TILE, VECTOR)


@triton.jit
def binarized(x, state, stream, first, TILE: tl.constexpr, VECTOR: tl.constexpr):
    """A (TILE, VECTOR) tile of uint8 pixels drawn black (0) or white (255), white with probability x / 255."""
    quad = first // 4 + tl.arange(0, TILE)[:, None] * (VECTOR // 4)
    w0, w1, w2, w3 = words(state, stream, quad)
    if VECTOR == 8:
        v0, v1, v2, v3 = words(state, stream, quad + 1)
        w0, w1, w2, w3 = tl.join(w0, v0), tl.join(w1, v1), tl.join(w2, v2), tl.join(w3, v3)
    word = _interleave(w0, w1, w2, w3, TILE, VECTOR).to(tl.uint32)
    # 255 * 0x01010101 is 2**32 - 1: the largest word steps back, so that 255 is always 1 and 0 never.
    word = tl.where(word == 0xFFFFFFFF, 0xFFFFFFFE, word)
    return tl.where(word < x.to(tl.uint32) * 0x01010101, 255, 0).to(tl.uint8)
