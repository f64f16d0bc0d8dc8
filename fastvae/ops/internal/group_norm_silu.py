"""SiLU of a group norm in channels_last, and its gradient, each in one pass on the CPU.

The traced step calls it (:mod:`fastvae.train.step.passes.fuse_group_norm`). It checks only what memory safety requires,
and has no derivative.
"""

import torch
from torch import Tensor

from fastvae.ops import _library


def _statistics(x: Tensor, groups: int) -> Tensor:
    return x.new_empty((x.shape[0], groups), dtype=torch.float32)


# ``group_norm_silu(x, weight, bias, groups, eps)``: x is (N, C, H, W) in channels_last, fp32 or bf16; weight and bias
# are (C) fp32. It returns the output, like x, and mean and reciprocal standard deviation of each image's groups,
# (N, groups) fp32. ``group_norm_silu_backward(gradient, x, mean, rstd, weight, bias, groups)`` returns the gradients of
# x, weight and bias.
_library.define_of_cpu(
    "group_norm_silu(Tensor x, Tensor weight, Tensor bias, int groups, float eps) -> (Tensor, Tensor, Tensor)",
    lambda x, weight, bias, groups, eps: (
        torch.empty_like(x, memory_format=torch.channels_last),
        _statistics(x, groups),
        _statistics(x, groups),
    ),
)
_library.define_of_cpu(
    "group_norm_silu_backward(Tensor gradient, Tensor x, Tensor mean, Tensor rstd, Tensor weight, Tensor bias, "
    "int groups) -> (Tensor, Tensor, Tensor)",
    lambda gradient, x, mean, rstd, weight, bias, groups: (
        torch.empty_like(x, memory_format=torch.channels_last),
        torch.empty_like(weight),
        torch.empty_like(bias),
    ),
)
group_norm_silu = torch.ops.fastvae.group_norm_silu.default
group_norm_silu_backward = torch.ops.fastvae.group_norm_silu_backward.default
