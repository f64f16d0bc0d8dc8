"""uint8 pixels as a network takes them, in one pass on the CPU; what recorded steps are made of (fastvae.train)."""

import torch

from fastvae.ops import _library

# ``scale_pixels(pixels, wide)``: dense uint8 pixels as x/255, rounded once to fp32 where ``wide``, else to bf16: what
# ``pixels.to(dtype) / 255`` is, to the bit.
_library.define_of_cpu(
    "scale_pixels(Tensor pixels, bool wide) -> Tensor",
    lambda pixels, wide: pixels.new_empty(pixels.shape, dtype=torch.float32 if wide else torch.bfloat16),
)
scale_pixels = torch.ops.fastvae.scale_pixels.default
