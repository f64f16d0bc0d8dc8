r"""The noise: standard normals as a pure function of (seed, step, stream, global row).

This is the specification. The Triton and C++ kernels implement it word for word.

For a tensor of shape ``(B, ...)`` with ``D`` elements a row, element ``(row, j)`` has the global index
``e = (row_offset + row) * D + j``, where ``row_offset`` is the place of the first row in the **global** batch.
Element ``e`` is lane ``e % 4`` of quad ``q = e // 4``, and a quad is one call of Philox4x32-10 (Salmon et al. 2011,
"Parallel random numbers: as easy as 1, 2, 3"):

    key     = (seed mod 2**32, seed div 2**32)
    counter = (q mod 2**32, q div 2**32, step mod 2**32, stream)

``stream`` separates draws that share a step (training 0, evaluation 1, ...). A ``fastvae.Noise`` draws pixels black or
white in ``stream ^ 2**30``, latents in ``stream``. The four words ``w0..w3`` become
uniforms by one rounding to nearest-even from an integer to fp32 and one addition in fp32, exact to the bit anywhere,
with or without a fused multiply-add:

    u(w) = fp32(w) * 2**-32 + 2**-33                      in [2**-33, 1]

and normals by Box and Muller (1958), two from each pair of words:

    lane 0 = sqrt(-2 ln u(w0)) * cos(2 pi u(w1))          lane 1 = sqrt(-2 ln u(w0)) * sin(2 pi u(w1))
    lane 2 = sqrt(-2 ln u(w2)) * cos(2 pi u(w3))          lane 3 = sqrt(-2 ln u(w2)) * sin(2 pi u(w3))

Words and uniforms are equal to the bit in every backend; the transcendental functions may differ by a few units in
the last place of the type they are evaluated in (fp64 for fp64 latents, fp32 or better for all others).
The largest value that can be drawn is sqrt(-2 ln 2**-33) = 6.76.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fastvae.utils.philox import philox4x32

_LOW = 0xFFFFFFFF


def uniform(word: Tensor) -> Tensor:
    """The uint32-to-uniform map of the specification, in fp32."""
    return word.to(torch.float32) * 2.0**-32 + 2.0**-33


def _words(state: Tensor, shape: Sequence[int], row_offset: int, stream: int) -> tuple[tuple[Tensor, ...], slice]:
    """Return the four words of each quad that holds an element of ``shape``, and the slice of these elements' lanes."""
    event = math.prod(shape[1:])
    first = row_offset * event
    count = shape[0] * event
    quad = torch.arange(first // 4, (first + count + 3) // 4, dtype=torch.int64, device=state.device)
    seed, step = state.unbind()
    counter = (quad & _LOW, quad >> 32 & _LOW, step & _LOW, torch.full_like(step, stream))
    return philox4x32(counter, (seed & _LOW, seed >> 32 & _LOW)), slice(first % 4, first % 4 + count)


def standard_normal(
    state: Tensor,
    shape: Sequence[int],
    row_offset: int = 0,
    stream: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Draw ``eps`` of ``shape`` (B, ...) from ``state``, an int64 tensor ``[seed, step]``, on its device.

    The normals are evaluated in fp64 and rounded once to ``dtype``.
    """
    (w0, w1, w2, w3), place = _words(state, shape, row_offset, stream)

    def pair(radius_word: Tensor, angle_word: Tensor) -> tuple[Tensor, Tensor]:
        radius = torch.sqrt(-2.0 * torch.log(uniform(radius_word).double()))
        angle = 2.0 * math.pi * uniform(angle_word).double()
        return radius * torch.cos(angle), radius * torch.sin(angle)

    lanes = torch.stack((*pair(w0, w1), *pair(w2, w3)), dim=-1).flatten()
    return lanes[place].reshape(tuple(shape)).to(dtype)


def binarize(target: Tensor, state: Tensor, row_offset: int = 0, stream: int = 0) -> Tensor:
    """Draw black-and-white pixels from grey ones: 255 with probability ``x / 255``, else 0.

    ``target``: (B, ...) uint8. Element ``e`` is 255 if its word ``w``, lane ``e % 4`` of its quad, has
    ``min(w, 2**32 - 2) < x * (2**32 - 1) / 255``, in integers. So 0 stays 0 and 255 stays 255.
    """
    words, place = _words(state, target.shape, row_offset, stream)
    word = torch.stack(words, dim=-1).flatten()[place].reshape(target.shape)
    return (word.clamp(max=2**32 - 2) < target.long() * 0x01010101).to(torch.uint8) * 255
