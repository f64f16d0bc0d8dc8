"""A linear layer and the likelihood of its outputs, a band of output columns at a time: never all logits at once.

The operators are compositions of torch's matrix products and the fused likelihood of the same backend, which writes a
band's loss and gradient in one pass. The layer's gradients follow at once, so backward is free, and the logits and
their gradient, (B, O) each, are never stored whole. Bands are columns, not rows: each writes its own rows of the
weight's gradient once, and only the gradient of ``hidden``, (B, H), is summed over bands. (Bands of rows would sum the
gradient of the weight, (O, H): 279 ms against 233 ms for bands of similar size at 4096 x 512 -> 3072.)
"""

import functools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from . import _library
from ._autograd import Reduce, fused_loss, gradient_shape, loss_shape

Layer = tuple[Tensor, Tensor, Tensor | None]

# Bytes of a band's outputs. CPU time of one thread (Zen 4, AVX-512; the least of five), forward + backward, in ms:
#   MiB                       1     2     4     6     8    12    nn.Linear + ops.bernoulli_nll
#   4096 x 512 -> 3072        -    532   479    -    483   469   527   fp32
#                            298   262   243   235   239   238   252   bf16
#   256 x 1024 -> 12288      286   302   269   280    -    272   272   fp32
#                            121   112   114    -     -     -    109   bf16
# Narrower bands starve the matrix product, wider ones hold more memory. On a GPU a band takes some five launches, and
# 32 MiB of it, 8 us of an H100's memory, stay in its L2: reasoned, NOT YET MEASURED ON A GPU.
_BANDS = {"cpu": 8 * 2**20, "cuda": 32 * 2**20}


# Unused arguments of a likelihood's schema: the key that binarizes the target.
_UNUSED: dict[str, tuple[int | None, ...]] = {"bernoulli_nll": (None, 0, 0), "gaussian_nll": ()}


def _bands(hidden: Tensor, outputs: int) -> Iterator[slice]:
    """Split the output columns into as few equal bands as possible, multiples of 64 wide; one empty band if none."""
    most = _BANDS.get(hidden.device.type, _BANDS["cpu"])
    count = max(1, math.ceil(len(hidden) * outputs * hidden.itemsize / most))
    width = math.ceil(max(outputs, 1) / count / 64) * 64
    for start in range(0, max(outputs, 1), width):
        yield slice(start, min(start + width, outputs))


def _outputs(layer: Layer, band: slice) -> Tensor:
    hidden, weight, bias = layer
    columns = weight[band].to(hidden.dtype).t()
    return hidden @ columns if bias is None else torch.addmm(bias[band].to(hidden.dtype), hidden, columns)


class _Gradients:
    """The gradients of a layer, collected band by band. An unwanted one is an empty tensor."""

    def __init__(self, layer: Layer, wanted: list[bool]) -> None:
        self.layer = layer
        self.wanted = wanted
        # The gradient of hidden is first allocated by the first band's product.
        self.of_hidden, self.of_weight, self.of_bias = _empty_gradients(*layer, [False, *wanted[1:]])

    def add(self, band: slice, gradient: Tensor) -> None:
        hidden, weight, _ = self.layer
        if self.wanted[0]:
            rows = weight[band].to(hidden.dtype)
            if not band.start:
                self.of_hidden = gradient @ rows
            elif hidden.dtype in (torch.bfloat16, torch.float16):
                self.of_hidden = self.of_hidden.float().add_(gradient @ rows)
            else:
                self.of_hidden.addmm_(gradient, rows)
        if self.wanted[1] and weight.dtype == hidden.dtype:
            torch.mm(gradient.t(), hidden, out=self.of_weight[band])
        elif self.wanted[1]:
            self.of_weight[band] = gradient.t() @ hidden
        if self.wanted[2]:
            self.of_bias[band] = gradient.sum(0, dtype=self.of_bias.dtype)

    def result(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.of_hidden.to(self.layer[0].dtype), self.of_weight, self.of_bias


def _empty_gradients(hidden: Tensor, weight: Tensor, bias: Tensor | None, wanted: list[bool]) -> tuple[Tensor, ...]:
    like = (hidden, weight, hidden if bias is None else bias)
    return tuple(gradient_shape(tensor, 1, want) for tensor, want in zip(like, wanted, strict=True))


def _forward(
    likelihood: str, operators: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    wanted, *options = rest
    *_, code, _, _, with_grad = options
    layer = (hidden, weight, bias)
    gradients = _Gradients(layer, wanted if with_grad and code else [False] * 3)
    losses = []
    for band in _bands(hidden, len(weight)):
        loss, gradient = getattr(operators, likelihood)(
            _outputs(layer, band), target[:, band].contiguous(), *_UNUSED[likelihood], *options
        )
        losses.append(loss)
        if with_grad and code:
            gradients.add(band, gradient)
        del gradient  # before the next band's is written
    total = losses[0] if len(losses) == 1 else torch.stack(losses).sum(0, dtype=torch.float64).to(losses[0].dtype)
    return total, *gradients.result()


def _backward(
    likelihood: str,
    operators: Any,
    grad_output: Tensor,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    wanted: list[bool],
    *options: Any,
) -> tuple[Tensor, ...]:
    layer = (hidden, weight, bias)
    gradients = _Gradients(layer, wanted)
    for band in _bands(hidden, len(weight)):
        gradient = getattr(operators, f"{likelihood}_backward")(
            grad_output, _outputs(layer, band), target[:, band].contiguous(), *_UNUSED[likelihood], *options
        )
        gradients.add(band, gradient)
        del gradient
    return gradients.result()


def _fake_forward(*arguments: Any) -> tuple[Tensor, ...]:
    hidden, weight, bias, _, wanted, *_, code, _, _, with_grad = arguments
    wanted = wanted if with_grad and code else [False] * 3
    return loss_shape(hidden, code), *_empty_gradients(hidden, weight, bias, wanted)


def _fake_backward(_: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> tuple[Tensor, ...]:
    return _empty_gradients(hidden, weight, bias, rest[1])


def define(likelihood: str, constants: str) -> None:
    """Declare ``linear_<likelihood>`` and its backward; ``constants`` are those of the likelihood's schema."""
    inputs = f"Tensor hidden, Tensor weight, Tensor? bias, Tensor target, bool[3] wanted, {constants}int reduction"
    factors = "float loss_weight, Tensor? loss_weight_tensor"
    _library.compose(
        f"linear_{likelihood}({inputs}, {factors}, bool with_grad) -> (Tensor, Tensor, Tensor, Tensor)",
        _fake_forward,
        functools.partial(_forward, likelihood),
    )
    _library.compose(
        f"linear_{likelihood}_backward(Tensor grad_output, {inputs}, {factors}) -> (Tensor, Tensor, Tensor)",
        _fake_backward,
        functools.partial(_backward, likelihood),
    )


def evaluate(
    likelihood: str,
    operators: Any,
    tensors: tuple[Tensor, Tensor, Tensor | None, Tensor],
    constants: tuple[float | bool, ...],
    reduce: Reduce,
) -> Tensor:
    """Run ``linear_<likelihood>`` for the gradients that are wanted of (hidden, weight, bias)."""
    wanted = [tensor is not None and tensor.requires_grad for tensor in tensors[:3]]
    return fused_loss(operators, f"linear_{likelihood}", tensors, (wanted, *constants), reduce)
