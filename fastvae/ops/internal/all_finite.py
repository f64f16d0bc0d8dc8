"""A check of gradients for infinities and NaN, on the CPU, in one pass over memory.

There is no Triton kernel: on a GPU, the host would have to wait for the answer.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fastvae.ops import _library

_library.define_of_cpu("all_finite(Tensor[] tensors) -> bool", lambda tensors: True)
_all_finite = torch.ops.fastvae.all_finite.default


def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Return True if all elements of all tensors are finite.

    Args:
        tensors: fp64, fp32, bf16 or fp16 on the CPU, of any shapes and strides; there may be none.

    Raises:
        TypeError: an unsupported dtype or device.

    >>> all_finite([torch.ones(2), torch.tensor([1.0, float("nan")])])
    False
    """
    if not (_library.has_native() and tensors and all(tensor.is_cpu for tensor in tensors)):
        _check(tensors)
        return all(bool(tensor.isfinite().all()) for tensor in tensors)
    try:
        answer: bool = _all_finite(tensors)
    except (RuntimeError, NotImplementedError):
        _check(tensors)  # only after the operator has refused: it takes 20 us for the gradients of a small network
        raise
    return answer


def _check(tensors: Sequence[Tensor]) -> None:
    for k, tensor in enumerate(tensors):
        if not tensor.dtype.is_floating_point or tensor.device.type != "cpu":
            raise TypeError(
                f"tensor {k} is {tensor.dtype} on {tensor.device}, not floating point on the CPU: "
                "use tensor.isfinite().all()"
            )
