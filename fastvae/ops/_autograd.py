"""One declaration and one autograd Function for every fused loss: forward writes the gradients, backward hands them on.

A loss operator ``name`` and its partner keep one calling convention, in the schema and in every backend:

    name(*tensors, *constants, reduction, weight, weight_tensor, with_grad) -> (loss, *gradients)
    name_backward(grad_output, *tensors, *constants, reduction, weight, weight_tensor) -> (*gradients,)

The gradients belong to the first tensors, in order; the rest (targets, keys) have none, and may be None. The gradients
are empty without ``with_grad``, and for ``reduction="none"``, where each row's factor is unknown until backward. The
forward writes none in fp16 either: they must not be rounded before backward has multiplied them by the loss scale.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _library
from ._check import reduction_code, split_weight

_library.define(
    "scale_gradient_(Tensor(a!) gradient, Tensor grad_output) -> ()",
    lambda gradient, grad_output: None,
    module="scale_gradient",
)


class Reduce(NamedTuple):
    """The reduction of a loss: the arguments that end every loss schema."""

    code: int
    weight: float
    weight_tensor: Tensor | None

    @classmethod
    def of(cls, reduction: str, weight: float | Tensor, like: Tensor, name: str = "weight") -> "Reduce":
        return cls(reduction_code(reduction), *split_weight(weight, like, name))

    @property
    def per_sample(self) -> bool:
        return self.code == 0


def define_loss(name: str, predictions: str, rest: str = "") -> None:
    """Declare a loss and its backward, implemented in the module of that name.

    ``predictions`` names the tensors that have gradients. ``rest`` is the schema of the arguments between them and the
    reduction: "Tensor target, float variance, bool full".
    """
    names = predictions.split()
    arguments = ", ".join([*(f"Tensor {prediction}" for prediction in names), *([rest] if rest else [])])
    reduction = "int reduction, float weight, Tensor? weight_tensor"
    gradients = ", ".join(["Tensor"] * len(names))

    def fake(*values: Any) -> tuple[Tensor, ...]:
        code, _, _, with_grad = values[-4:]
        tensors = values[: len(names)]
        return loss_shape(tensors[0], code), *(gradient_shape(tensor, code, with_grad) for tensor in tensors)

    def fake_backward(_: Tensor, *values: Any) -> Tensor | tuple[Tensor, ...]:
        shapes = tuple(tensor.new_empty(tensor.shape) for tensor in values[: len(names)])
        return shapes if len(shapes) > 1 else shapes[0]

    _library.define(f"{name}({arguments}, {reduction}, bool with_grad) -> (Tensor, {gradients})", fake, module=name)
    returns = f"({gradients})" if len(names) > 1 else gradients
    schema = f"{name}_backward(Tensor grad_output, {arguments}, {reduction}) -> {returns}"
    _library.define(schema, fake_backward, module=name)


def loss_shape(tensor: Tensor, reduction: int) -> Tensor:
    """The fake loss: one value a sample or one in all; fp64 for fp64, else fp32."""
    dtype = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    return tensor.new_empty((tensor.shape[0],) if reduction == 0 else (), dtype=dtype)


def gradient_shape(tensor: Tensor, reduction: int, with_grad: bool) -> Tensor:
    """The fake gradient of a loss's forward: dense, or empty where the forward writes none."""
    return tensor.new_empty(tensor.shape if with_grad and reduction != 0 else (0,))


Constants = tuple[float | bool | list[bool], ...]


def fused_loss(
    operators: Any,
    name: str,
    tensors: tuple[Tensor | None, ...],
    constants: Constants,
    reduce: Reduce,
) -> Tensor:
    """Run a fused loss; record it for autograd if an input requires a gradient."""
    forward = getattr(operators, name)
    if torch.is_grad_enabled():
        for tensor in tensors:
            if tensor is not None and tensor.requires_grad:
                # Few arguments, those of one kind packed: autograd looks at each of them on every call.
                calls = forward, getattr(operators, f"{name}_backward"), operators.scale_gradient_
                recorded: Tensor = _FusedLoss.apply(calls, (constants, reduce[:2]), reduce.weight_tensor, *tensors)
                return recorded
    value: Tensor = forward(*tensors, *constants, *reduce, False)[0]
    return value


class _Refuse(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(_ctx: Any, *_: Any) -> Any:
        raise RuntimeError("a fused operator of fastvae cannot be differentiated twice: use backend='reference'")


Gradients = tuple[Tensor | None, ...]
_WITHOUT = (None,) * 3  # the arguments before the tensors in _FusedLoss.forward have no gradient


def first_order(backward: Callable[..., Gradients]) -> Callable[..., Gradients]:
    """Make a backward non-differentiable: a second-order gradient through its result raises an error.

    torch's ``once_differentiable`` raises only if the incoming gradient requires a gradient. The gradient of a loss is
    a constant one, so the second-order term of a gradient penalty would silently be zero.

    In a compiled graph torch itself raises. Before 2.13 it does so only if backward takes a tensor that requires a
    gradient, such as a layer's weight: a loss that is compiled alone silently loses its second-order term.
    """

    @functools.wraps(backward)
    def wrapper(ctx: Any, *incoming: Tensor | None) -> Gradients:
        if not torch.is_grad_enabled():  # the usual case: even entering no_grad would cost a small batch time
            return backward(ctx, *incoming)
        with torch.no_grad():
            gradients = backward(ctx, *incoming)
        if torch.compiler.is_compiling():
            return gradients
        return tuple(None if g is None else _Refuse.apply(g.detach().requires_grad_()) for g in gradients)

    return wrapper


class _FusedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        calls: tuple[Any, Any, Any],
        settings: tuple[Constants, tuple[int, float]],
        weight_tensor: Tensor | None,
        *tensors: Any,
    ) -> Tensor:
        constants, (code, weight) = settings
        with_grad = code != 0 and tensors[0].dtype != torch.float16
        value: Tensor
        value, *gradients = calls[0](*tensors, *constants, code, weight, weight_tensor, with_grad)
        ctx.calls = calls
        ctx.settings = settings
        ctx.count = len(tensors)
        ctx.fresh = None
        if torch.compiler.is_compiling():
            ctx.save_for_backward(weight_tensor, *tensors, *(gradients if with_grad else ()))
        else:
            # On ctx, not among the saved tensors: backward gives these away once (see below).
            ctx.fresh = gradients if with_grad else None
            ctx.save_for_backward(weight_tensor, *tensors)
        return value

    @staticmethod
    @first_order
    def backward(ctx: Any, grad_output: Tensor) -> Gradients:
        gradients: Sequence[Tensor] = ctx.fresh or ()
        _, backward, scale_ = ctx.calls
        if not gradients:
            weight_tensor, *saved = ctx.saved_tensors
            tensors = saved[: ctx.count]
            gradients = saved[ctx.count :]
        if gradients:
            # The kernel reads grad_output on the device, and does nothing if it is 1.
            for gradient in gradients:
                scale_(gradient, grad_output)
            ctx.fresh = None
        else:
            # Per-sample factors, fp16, or a second backward: the caller owns the first one's result.
            constants, (code, weight) = ctx.settings
            gradients = _as_sequence(
                backward(grad_output.contiguous(), *tensors, *constants, code, weight, weight_tensor)
            )
        wanted = ctx.needs_input_grad[len(_WITHOUT) :]  # False for an input that is None
        present = [g if want else None for g, want in zip(gradients, wanted, strict=False)]
        return (*_WITHOUT, *present, *(None,) * (ctx.count - len(present)))


def _as_sequence(result: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    return (result,) if isinstance(result, Tensor) else result
