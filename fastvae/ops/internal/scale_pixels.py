"""Conversion of uint8 pixels to floats in [0, 1], in one pass on the CPU. Traced steps call it."""

import torch

from fastvae.ops import _library

# ``scale_pixels(pixels, wide)``: returns dense uint8 pixels as x/255, in fp32 if ``wide``, else in bf16; equal to
# ``pixels.to(dtype) / 255`` to the bit.
_library.define_of_cpu(
    "scale_pixels(Tensor pixels, bool wide) -> Tensor",
    lambda pixels, wide: pixels.new_empty(pixels.shape, dtype=torch.float32 if wide else torch.bfloat16),
)
scale_pixels = torch.ops.fastvae.scale_pixels.default
