"""One declaration and one autograd Function for the operators that draw a sample of the posterior.

A latent operator ``name`` and its partner keep one calling convention, in the schema and in every backend, where
``*noise`` is (eps, state, row_offset, stream):

    name(mu, logvar, *noise, *settings) -> (z, second)
    name_backward(grad_z, grad_second, mu, logvar, *noise, *settings, *backward_settings) -> (grad_mu, grad_logvar)

The second output is the KL or the log ratio. Backward is given None for the gradient of an output that was not used.
An operator that returns z alone has a shorter partner, because its gradient of mu is grad_z:

    name_backward(grad_z, logvar, *noise, *settings) -> grad_logvar
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import _library
from ._autograd import Gradients, Reduce, first_order
from .noise import NOISE_SCHEMA, NoiseArguments

CLAMP_SCHEMA = "float low, float high"
REDUCE_SCHEMA = "int reduction, float weight, Tensor? weight_tensor"

Outputs = Tensor | tuple[Tensor, Tensor]


def define_latent(
    name: str, outputs: str, settings: str, shapes: Callable[..., Outputs], *, backward_settings: str = ""
) -> None:
    """Declare a latent operator and its backward, implemented in the module of that name.

    Args:
        name: the operator's name.
        outputs: "z", or "z" and the name of the second output: "z kl".
        settings: the schema of the arguments that follow the noise: "float low, float high".
        shapes: the fake outputs; called with mu and the settings.
        backward_settings: the schema of the arguments that only backward takes, after the others.
    """
    names = outputs.split()
    inputs = f"Tensor logvar, {NOISE_SCHEMA}, {settings}"

    def fake(mu: Tensor, *values: Any) -> Outputs:
        return shapes(mu, *values[5:])  # without logvar and the noise

    def fake_backward(*values: Any) -> Outputs:
        if len(names) == 1:
            return _like(values[1])
        return _like(values[2]), _like(values[3])

    if len(names) == 1:
        returns = "Tensor"
        backward_inputs = f"Tensor grad_z, {inputs}"
    else:
        returns = "(Tensor, Tensor)"
        gradients = ", ".join(f"Tensor? grad_{output}" for output in names)
        backward_inputs = ", ".join(filter(None, [gradients, "Tensor mu", inputs, backward_settings]))
    _library.define(f"{name}(Tensor mu, {inputs}) -> {returns}", fake, module=name)
    _library.define(f"{name}_backward({backward_inputs}) -> {returns}", fake_backward, module=name)


def _like(tensor: Tensor) -> Tensor:
    return tensor.new_empty(tensor.shape)


def fused_latent(
    operators: Any,
    name: str,
    mu: Tensor,
    logvar: Tensor,
    noise: NoiseArguments,
    settings: tuple[float, ...],
    *,
    reduce: Reduce | None = None,
    backward_settings: tuple[int, ...] = (),
    error_without_second: str = "",
) -> Any:
    """Run a latent operator; record it for autograd if mu or logvar requires a gradient.

    Args:
        operators: a backend's operators, from :func:`fastvae.ops._library.resolve`.
        name: the operator's name.
        mu: (B, ...) with dense rows.
        logvar: same shape.
        noise: from :func:`fastvae.ops.noise.noise_arguments`.
        settings: values for the schema's settings, up to the reduction.
        reduce: values for the reduction that ends the settings, if one does.
        backward_settings: values for the arguments that only backward takes.
        error_without_second: if not empty, backward raises a RuntimeError with this message when the second output was
            not used.

    Returns:
        z, or z and the second output.
    """
    forward = getattr(operators, name)
    if torch.is_grad_enabled() and (mu.requires_grad or logvar.requires_grad):
        # Few arguments, those of one kind packed: autograd looks at each of them on every call.
        eps, state, *place = noise
        weight_tensor = None if reduce is None else reduce.weight_tensor
        constants = (*place, *settings) if reduce is None else (*place, *settings, *reduce[:2])
        options = (constants, reduce is not None, backward_settings, error_without_second)
        calls = forward, getattr(operators, f"{name}_backward")
        return _FusedLatent.apply(calls, options, weight_tensor, eps, state, mu, logvar)
    return forward(mu, logvar, *noise, *settings, *(reduce or ()))


_WITHOUT = (None,) * 5  # the arguments before mu and logvar in _FusedLatent.forward have no gradient


class _FusedLatent(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        calls: tuple[Any, Any],
        options: tuple[tuple[float, ...], bool, tuple[int, ...], str],
        weight_tensor: Tensor | None,
        eps: Tensor | None,
        state: Tensor | None,
        mu: Tensor,
        logvar: Tensor,
    ) -> Any:
        constants, reduced, _, _ = options
        weight = (weight_tensor,) if reduced else ()
        outputs = calls[0](mu, logvar, eps, state, *constants, *weight)
        ctx.backward_call = calls[1]
        ctx.options = options
        if isinstance(outputs, Tensor):
            ctx.save_for_backward(logvar, eps, state)
            return outputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(mu, logvar, eps, state, weight_tensor)
        return tuple(outputs)

    @staticmethod
    @first_order
    def backward(ctx: Any, grad_z: Tensor | None, *grad_second: Tensor | None) -> Gradients:
        constants, reduced, backward_settings, error_without_second = ctx.options
        if not grad_second:
            assert grad_z is not None
            return (*_WITHOUT, grad_z, ctx.backward_call(grad_z.contiguous(), *ctx.saved_tensors, *constants))
        (second,) = grad_second
        if grad_z is None and second is None:  # autograd does not call backward then, but gradcheck does
            return (*_WITHOUT, None, None)
        if second is None and error_without_second:
            raise RuntimeError(error_without_second)
        *tensors, weight_tensor = ctx.saved_tensors
        gradients = ctx.backward_call(
            None if grad_z is None else grad_z.contiguous(),
            None if second is None else second.contiguous(),
            *tensors,
            *constants,
            *((weight_tensor,) if reduced else ()),
            *backward_settings,
        )
        return (*_WITHOUT, *gradients)
