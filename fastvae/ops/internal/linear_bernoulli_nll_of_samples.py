"""The last layer of a Bernoulli decoder and its nll, of several samples a picture: without a gradient, on the CPU.

There is no Triton kernel: a GPU takes :func:`fastvae.ops.linear_bernoulli_nll`, whose bands of logits stay in its L2.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from fastvae.ops import _library

_STRIP = 96  # columns that the kernel reads together

_library.define_of_cpu(
    "linear_bernoulli_nll_of_samples(Tensor hidden, Tensor weight, Tensor bias, Tensor target, bool skips) -> Tensor",
    lambda hidden, *_: hidden.new_empty(hidden.shape[:1], dtype=torch.float32),
)


class PackedLinear(NamedTuple):
    """A linear layer as the kernel reads it.

    weight: (ceil(O / 96), H, 96) in the type of the inputs, dense, with zeros up to 96 outputs, and for bf16 up to an
        even number of inputs. bias: (ceil(O / 96) * 96,) fp32.
    is_finite: True if all weights are finite, so that inputs of 0 may be left out.
    """

    weight: Tensor
    bias: Tensor
    inputs: int
    outputs: int
    is_finite: bool


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    """Return True if this machine computes :func:`linear_bernoulli_nll_of_samples` of such inputs."""
    if device.type != "cpu" or not _library.has_native():
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and _library.multiplies_bf16())


def pack_linear(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> PackedLinear:
    """Pack a layer's weight (O, H) and its bias (O,) or None, for inputs of ``dtype``, fp32 or bf16."""
    outputs, inputs = weight.shape
    columns = -(-outputs // _STRIP) * _STRIP
    padded = weight.new_zeros((columns, _even(inputs, dtype)), dtype=dtype)
    padded[:outputs, :inputs] = weight.detach()
    biases = weight.new_zeros(columns, dtype=torch.float32)
    if bias is not None:
        biases[:outputs] = bias.detach()
    strips = padded.view(columns // _STRIP, _STRIP, padded.shape[1]).transpose(1, 2).contiguous()
    return PackedLinear(strips, biases, inputs, outputs, bool(padded.isfinite().all()))


def _even(inputs: int, dtype: torch.dtype) -> int:
    return inputs + inputs % 2 if dtype == torch.bfloat16 else inputs


def linear_bernoulli_nll_of_samples(hidden: Tensor, layer: PackedLinear, target: Tensor) -> Tensor:
    r"""Return ``-log p(x | h)`` in nats, (B * K,) fp32, of K inputs of a decoder's last layer for each of B pictures.

    .. math:: -\log p(x \mid h) = \sum_j \max(l_j, 0) - l_j x_j + \log(1 + e^{-|l_j|}), \quad l = W h + b

    The logits are summed in fp32 and used before they are stored anywhere. Inputs that are 0 in neighbouring rows, as
    after a ReLU, cost nothing. The same call gives the same bits, on any number of threads. In fp32, a row's value
    depends on that row alone; in bf16, the order of its sums also depends on the zeros of the rows beside it.

    Args:
        hidden: (B * K, H) fp32 or bf16 on the CPU, those of a picture one after another.
        layer: the last layer, packed for that type by :func:`pack_linear`.
        target: (B, O) fp32 pixels in [0, 1].

    Raises:
        ValueError: shapes do not match, or the machine does not support it (:func:`supports`).
        TypeError: an unsupported dtype.

    It has no derivative. An infinite or NaN logit gives an infinite or NaN loss. In bf16, subnormal numbers are zeros
    (see :func:`fastvae.ops.internal.mm.mm`).
    """
    if hidden.dtype not in (torch.float32, torch.bfloat16) or target.dtype != torch.float32:
        raise TypeError(f"hidden is {hidden.dtype}, target {target.dtype}: they need fp32 or bf16, and fp32")
    if layer.weight.dtype != hidden.dtype:
        raise TypeError(f"hidden is {hidden.dtype}, but the layer was packed for {layer.weight.dtype}: pack it again")
    if not supports(hidden.device, hidden.dtype):
        raise ValueError(
            f"linear_bernoulli_nll_of_samples of {hidden.dtype} needs the built C++ extension and a CPU that has it: "
            "use linear_bernoulli_nll"
        )
    if hidden.ndim != 2 or target.ndim != 2 or (hidden.shape[1], target.shape[1]) != (layer.inputs, layer.outputs):
        raise ValueError(
            f"hidden has shape {tuple(hidden.shape)}, target {tuple(target.shape)}, but the layer has {layer.inputs} "
            f"inputs and {layer.outputs} outputs"
        )
    if (hidden.shape[0] % target.shape[0]) if target.shape[0] else hidden.shape[0]:
        raise ValueError(f"{hidden.shape[0]} rows are not as many for each of {target.shape[0]} pictures")
    hidden = functional.pad(hidden, (0, layer.weight.shape[1] - layer.inputs))
    result: Tensor = torch.ops.fastvae.linear_bernoulli_nll_of_samples(
        hidden.contiguous(), layer.weight, layer.bias, target.contiguous(), layer.is_finite
    )
    return result
