"""Products of bf16 matrices on the CPU, for the layers of small networks.

There is no Triton kernel: on a GPU cuBLAS is used, and on a CPU without AVX-512 BF16 oneDNN. What replaces torch's
products in a recorded step is :mod:`fastvae.train.step.passes.batch_matmuls`.
"""

import torch
from torch import Tensor

from fastvae.ops import _library

_library.define_of_cpu(
    "mm(Tensor[] lefts, Tensor[] rights, Tensor[] biases) -> Tensor[]",
    lambda lefts, rights, _: [a.new_empty((a.shape[0], b.shape[1])) for a, b in zip(lefts, rights, strict=True)],
)
# Of lists, and without the checks of `mm`: for programs that have made theirs.
mm_of_lists = torch.ops.fastvae.mm.default


def mm(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    r"""The product of two matrices, and a bias added to each of its rows, summed in fp32 and rounded once.

    .. math:: y_{mn} = b_n + \sum_k l_{mk} \, r_{kn}

    Sums begin at the bias and go along k in pairs, by the instruction VDPBF16PS, to which subnormal numbers are zeros:
    in what comes in (an infinity times one is NaN), in the sums and in the result (Intel 64 and IA-32 Architectures
    Software Developer's Manual, volume 2). A row of the result depends on that row of ``left`` alone: not on the other
    rows, their number, or the number of threads.

    It has no derivative: it is what a recorded forward and backward is made of. ``mm_of_lists`` takes matrices that do
    not depend on one another, and computes their products at once.

    Args:
        left: (M, K) bf16 on the CPU, of any strides.
        right: (K, N), the same.
        bias: (N,) bf16, dense, or None.

    Returns:
        (M, N) bf16, dense.

    Raises:
        ValueError: the extension is not built or the machine lacks AVX-512 BF16, shapes differ, or a gradient is asked
            for.
        TypeError: an unsupported dtype or device.

    >>> from fastvae.ops._library import multiplies_bf16
    >>> x = torch.tensor([[1.0, 2.0]], dtype=torch.bfloat16)
    >>> y = mm(x, x.t()) if multiplies_bf16() else x @ x.t()
    >>> y.item()
    5.0
    """
    if not _library.multiplies_bf16():
        raise ValueError("mm needs the built C++ extension and a CPU with AVX-512 BF16: use torch.addmm")
    for name, tensor, dim in (("left", left, 2), ("right", right, 2), ("bias", bias, 1)):
        if tensor is None:
            continue
        if tensor.dtype != torch.bfloat16 or tensor.device.type != "cpu":
            raise TypeError(f"{name} is {tensor.dtype} on {tensor.device}, not bf16 on the CPU: use torch.addmm")
        if tensor.dim() != dim:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, but must have {dim} dimensions")
        if torch.is_grad_enabled() and tensor.requires_grad:
            raise ValueError(f"{name} requires grad, but mm has no derivative: use torch.addmm, or torch.no_grad()")
    if left.shape[1] != right.shape[0]:
        raise ValueError(
            f"left has shape {tuple(left.shape)}, right {tuple(right.shape)}: the columns of the one must be as many "
            "as the rows of the other"
        )
    if bias is not None and bias.shape[0] != right.shape[1]:
        raise ValueError(f"bias has {bias.shape[0]} numbers, but right has {right.shape[1]} columns: pass one for each")
    product: Tensor
    (product,) = mm_of_lists([left], [right], [] if bias is None else [bias.contiguous()])
    return product
