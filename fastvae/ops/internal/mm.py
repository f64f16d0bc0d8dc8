"""Matmuls in bf16, fp32 and fp64 on the CPU, for the layers of small networks.

There is no Triton kernel: a GPU uses cuBLAS. In bf16, a CPU without AVX-512 BF16 uses oneDNN. In a traced step,
:mod:`fastvae.train.step.passes.batch_matmuls` replaces torch's matmuls by these.
"""

import torch
from torch import Tensor

from fastvae.ops import _library

_library.define_of_cpu(
    "mm(Tensor[] lefts, Tensor[] rights, Tensor[] biases) -> Tensor[]",
    lambda lefts, rights, _: [a.new_empty((a.shape[0], b.shape[1])) for a, b in zip(lefts, rights, strict=True)],
)
# Takes lists, and skips the checks of `mm`: for callers that make their own.
mm_of_lists = torch.ops.fastvae.mm.default


def mm(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    r"""Multiply two matrices and add a bias to each row.

    .. math:: y_{mn} = b_n + \sum_k l_{mk} \, r_{kn}

    Sums start with the bias and proceed along k by fused multiply-adds in the type of the matrices, or plain ones on a
    machine without FMA. A row of the result depends only on that row of ``left``: not on other rows, their number, or
    the number of threads.

    In bf16, sums are of fp32 and rounded once, and proceed in pairs, by the instruction VDPBF16PS. It treats subnormal
    numbers as zeros, in operands (so that infinity times a subnormal is NaN), sums and results (Intel 64 and IA-32
    Architectures Software Developer's Manual, volume 2).

    It has no derivative, because traced forward and backward passes are built from it. ``mm_of_lists`` computes several
    independent products at once.

    Args:
        left: (M, K) bf16, fp32 or fp64 on the CPU, of any strides.
        right: (K, N) of the same type on the CPU, of any strides.
        bias: (N,) of the same type, dense, or None.

    Returns:
        (M, N) of that type, dense.

    Raises:
        ValueError: the extension is not built; the matrices are bf16, and the machine lacks AVX-512 BF16; shapes do not
            match; or an argument requires a gradient.
        TypeError: an unsupported dtype or device, or several.

    >>> x = torch.tensor([[1.0, 2.0]])
    >>> y = mm(x, x.t()) if _library.has_native() else x @ x.t()
    >>> y.item()
    5.0
    """
    if not _library.has_native():
        raise ValueError("mm needs the built C++ extension: use torch.addmm")
    if left.dtype not in (torch.bfloat16, torch.float32, torch.float64):
        raise TypeError(f"left is {left.dtype}, not bf16, fp32 or fp64: use torch.addmm")
    if left.dtype == torch.bfloat16 and not _library.multiplies_bf16():
        raise ValueError("mm of bf16 matrices needs a CPU with AVX-512 BF16: use torch.addmm")
    for name, tensor, dim in (("left", left, 2), ("right", right, 2), ("bias", bias, 1)):
        if tensor is None:
            continue
        if tensor.dtype != left.dtype or tensor.device.type != "cpu":
            raise TypeError(
                f"{name} is {tensor.dtype} on {tensor.device}, not {left.dtype} on the CPU as left is: use torch.addmm"
            )
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
