"""A linear layer by oneDNN, as one operator that a compiler leaves alone. Compiled steps call it.

TorchInductor takes torch's own operator for a packed layer, whose weight must be a constant.
"""

import torch
from torch import Tensor

from fastvae.ops import _library


def _compute(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, "none", [], "")
    return product


# ``onednn_linear(x, weight, bias)``: (M, K), (N, K) and (N,) or None to (M, N), on the CPU.
_library.define_of_cpu(
    "onednn_linear(Tensor x, Tensor weight, Tensor? bias) -> Tensor",
    lambda x, weight, bias: x.new_empty((x.shape[0], weight.shape[0])),
    _compute,
)
onednn_linear = torch.ops.fastvae.onednn_linear.default
