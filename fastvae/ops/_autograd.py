"""One autograd Function for every fused loss: the forward has already written the gradients, backward hands them on.

A loss operator ``name`` and its partner keep one calling convention, in the schema and in every backend:

    name(*tensors, *constants, reduction, weight, weight_tensor, with_grad) -> (loss, *gradients)
    name_backward(grad_output, *tensors, *constants, reduction, weight, weight_tensor) -> (*gradients,)

The gradients belong to the first of the tensors, in order; the rest (targets) have none. Asked without ``with_grad``,
and for ``reduction="none"``, where the factor of each row is unknown until backward, the gradients come back empty.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import _library
from ._check import reduction_code, split_weight

_library.define(
    "scale_gradient_(Tensor(a!) gradient, Tensor grad_output) -> ()",
    lambda gradient, grad_output: None,
    module="scale_gradient",
)


class Reduce(NamedTuple):
    """How a loss is reduced: the arguments that end every loss schema."""

    code: int
    weight: float
    weight_tensor: Tensor | None

    @classmethod
    def of(cls, reduction: str, weight: float | Tensor, like: Tensor) -> "Reduce":
        return cls(reduction_code(reduction), *split_weight(weight, like.device))

    @property
    def per_sample(self) -> bool:
        return self.code == 0


def loss_shape(tensor: Tensor, reduction: int) -> Tensor:
    """The fake loss: one value a sample or one in all; fp64 for fp64, else fp32."""
    dtype = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    return tensor.new_empty((tensor.shape[0],) if reduction == 0 else (), dtype=dtype)


def gradient_shape(tensor: Tensor, reduction: int, with_grad: bool) -> Tensor:
    """The fake gradient of a loss's forward: dense, or empty where the forward writes none."""
    return tensor.new_empty(tensor.shape if with_grad and reduction != 0 else (0,))


def fused_loss(
    operators: Any, name: str, tensors: tuple[Tensor, ...], constants: tuple[float | bool, ...], reduce: Reduce
) -> Tensor:
    """Run a fused loss; record it for autograd if an input asks for that."""
    forward = getattr(operators, name)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        value: Tensor = _FusedLoss.apply(
            forward, getattr(operators, f"{name}_backward"), operators.scale_gradient_, constants, *reduce, *tensors
        )
    else:
        value = forward(*tensors, *constants, *reduce, False)[0]
    return value


class _FusedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        forward: Any,
        backward: Any,
        scale_: Any,
        constants: tuple[float | bool, ...],
        code: int,
        weight: float,
        weight_tensor: Tensor | None,
        *tensors: Tensor,
    ) -> Tensor:
        with_grad = code != 0
        value: Tensor
        value, *gradients = forward(*tensors, *constants, code, weight, weight_tensor, with_grad)
        ctx.operators = backward, scale_
        ctx.arguments = constants, code, weight
        ctx.count = len(tensors)
        ctx.fresh = None
        if torch.compiler.is_compiling():
            ctx.save_for_backward(weight_tensor, *tensors, *(gradients if with_grad else ()))
        else:
            # On ctx, not among the saved tensors: backward gives these away, once (see below).
            ctx.fresh = gradients if with_grad else None
            ctx.save_for_backward(weight_tensor, *tensors)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        gradients: Sequence[Tensor]
        backward, scale_ = ctx.operators
        constants, code, weight = ctx.arguments
        weight_tensor, *saved = ctx.saved_tensors
        tensors, gradients = saved[: ctx.count], saved[ctx.count :] or ctx.fresh
        if gradients:
            # Scaled in place by a kernel that looks at grad_output on the device and does nothing if it is 1.
            for gradient in gradients:
                scale_(gradient, grad_output)
            ctx.fresh = None
        else:
            # Per-sample factors, or a second backward: the first one's result is the caller's now, so compute anew.
            gradients = _as_sequence(
                backward(grad_output.contiguous(), *tensors, *constants, code, weight, weight_tensor)
            )
        without = (None,) * (len(tensors) - len(gradients))
        return (*(None,) * 7, *gradients, *without)


def _as_sequence(result: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    return (result,) if isinstance(result, Tensor) else result
