"""Scale a gradient in place. A factor of 1, as in ``loss.backward()``, costs only the launch."""

import triton
import triton.language as tl
from torch import Tensor

from ._launch import launch_config, on_device_of
from ._tile import program_segment, span, store

# Few programs, which loop: an early exit costs only the launch, not waves of blocks. NOT YET MEASURED ON A GPU.
_MAX_PROGRAMS = 1024


@triton.jit(do_not_specialize=["length", "chunks"])
def _scale(
    gradient,  # (length,)
    grad_output,  # ()
    length: tl.int64,
    chunks: tl.int64,
    TILE: tl.constexpr,
    VECTOR: tl.constexpr,
    ALIGNED: tl.constexpr,
    INDEX: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    _, chunk, length, step = program_segment(length, chunks, TILE, VECTOR, ALIGNED, INDEX)
    factor = tl.load(grad_output).to(COMPUTE)
    if factor != 1.0:  # so is NaN
        for start in range(chunk * (TILE * VECTOR), length, step):
            place, mask = span(start, length, VECTOR, TILE, ALIGNED)
            value = tl.load(gradient + place, mask=mask).to(COMPUTE)
            store(gradient, place, value * factor, mask)


def scale_gradient_(gradient: Tensor, grad_output: Tensor) -> None:
    """``gradient *= grad_output`` (0-d); the kernel looks at the factor, so the host never waits for it."""
    if gradient.numel():
        config = launch_config(gradient, False, max_chunks=_MAX_PROGRAMS)
        with on_device_of(gradient):
            _scale[config.grid](gradient, grad_output, config.length, config.chunks, **config.meta)
