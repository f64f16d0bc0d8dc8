"""A preset's network as a function of jax, with the weights of the torch model."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import Array, lax
from torch import Tensor, nn

from fastvae.models import VAE
from fastvae.models.blocks import Flat, Grid

Weights = Mapping[str, Array]  # by the names of the torch model's parameters
Layer = Callable[[Weights, Any], Any]

# Activations lie in (B, H, W, C). The convolutions of conv28 at batch 128, forward and both gradients, took XLA 71 ms
# in that layout and 88 in (B, C, H, W); as gathered patches and one product 148 (fp32, 2-core EPYC with AVX-512, other
# work beside it). Axes of weights, from torch's to jax's: a product's are (in, out), a convolution's (H, W, in, out).
_TO_JAX: Mapping[int, tuple[int, ...]] = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}


def weights_of(model: nn.Module, device: Any = None) -> dict[str, Array]:
    """Copy a torch model's parameters to jax, in jax's order of axes."""
    return {
        name: jax.device_put(np.ascontiguousarray(_numpy(weight).transpose(_TO_JAX[weight.dim()])), device)
        for name, weight in model.named_parameters()
    }


@torch.no_grad()
def copy_back(weights: Weights, model: nn.Module) -> None:
    """Copy weights of jax into the parameters of the torch model that they came from."""
    for name, weight in model.named_parameters():
        value = np.asarray(weights[name]).transpose(np.argsort(_TO_JAX[weight.dim()]))
        weight.copy_(torch.from_numpy(np.array(value, order="C")))


def pixels_of(images: Tensor, network: str) -> np.ndarray[Any, Any]:
    """Return images (B, C, H, W) in the order that the network takes: (B, pixels) for an MLP, or (B, H, W, C)."""
    return _numpy(images.flatten(1) if network == "mlp" else images.permute(0, 2, 3, 1).contiguous())


def encoder_and_decoder(model: VAE) -> tuple[Layer, Layer]:
    """Return functions of (weights, pixels) that gives mu and logvar, and of (weights, z) that gives the output.

    They compute in the dtype of the weights, and normalise in fp32.

    Raises:
        NotImplementedError: the model has a layer that this file does not know.
    """
    encoder = _layer(model.encoder, "encoder")

    def encode(weights: Weights, x: Array) -> tuple[Array, Array]:
        encoded = encoder(weights, x)
        if isinstance(encoded, tuple):
            return encoded
        mu, logvar = jnp.split(encoded, 2, axis=-1)
        return mu, logvar

    return encode, _layer(model.decoder, "decoder")


def _numpy(tensor: Tensor) -> np.ndarray[Any, Any]:
    return tensor.detach().cpu().numpy()


def _layer(module: nn.Module, name: str) -> Layer:  # noqa: PLR0911
    if isinstance(module, nn.Sequential):
        return partial(_chain, [_layer(child, f"{name}.{at}") for at, child in module.named_children()])
    match module:
        case nn.Linear():
            return partial(_linear, f"{name}.weight", None if module.bias is None else f"{name}.bias")
        case nn.Conv2d(groups=1, padding_mode="zeros", dilation=(1, 1)) if not isinstance(module.padding, str):
            pads = [(side, side) for side in module.padding]
            bias = None if module.bias is None else f"{name}.bias"
            return partial(_convolution, f"{name}.weight", bias, module.stride, pads)
        case nn.GroupNorm():
            return partial(_group_norm, name, module.num_groups, module.eps)
        case nn.PixelShuffle():
            return lambda _, x: _pixel_shuffle(x, module.upscale_factor)
        case Flat() | nn.Flatten() | nn.Unflatten():  # an MLP's pixels are flat, whatever their shape was
            return lambda _, x: x.reshape(len(x), -1)
        case Grid():
            return lambda _, x: x.reshape(len(x), *module.sides, -1)
        case nn.LeakyReLU():
            return lambda _, x: jnp.where(x > 0, x, x * module.negative_slope)
    for kind, function in _ACTIVATIONS.items():
        if type(module) is kind:
            return lambda _, x: function(x)
    if {child for child, _ in module.named_children()} == {"mu", "logvar"}:  # the two heads of an MLP
        mu, logvar = (_layer(module.get_submodule(head), f"{name}.{head}") for head in ("mu", "logvar"))
        return lambda weights, x: (mu(weights, x), logvar(weights, x))
    raise NotImplementedError(f"{name} is {type(module).__name__}, which the jax loop does not know")


_ACTIVATIONS: Mapping[type[nn.Module], Callable[[Array], Array]] = {
    nn.ReLU: jax.nn.relu,
    nn.SiLU: jax.nn.silu,
    nn.Sigmoid: jax.nn.sigmoid,
    nn.Tanh: jnp.tanh,
}


def _chain(layers: list[Layer], weights: Weights, x: Any) -> Any:
    for layer in layers:
        x = layer(weights, x)
    return x


def _linear(weight: str, bias: str | None, weights: Weights, x: Array) -> Array:
    product = x @ weights[weight]
    return product if bias is None else product + weights[bias]


def _convolution(
    weight: str,
    bias: str | None,
    stride: Sequence[int],
    padding: list[tuple[int, int]],
    weights: Weights,
    x: Array,
) -> Array:
    output = lax.conv_general_dilated(x, weights[weight], stride, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return output if bias is None else output + weights[bias]


def _group_norm(name: str, groups: int, eps: float, weights: Weights, x: Array) -> Array:
    grouped = x.astype(jnp.float32).reshape(len(x), -1, groups, x.shape[-1] // groups)
    mean = grouped.mean((1, 3), keepdims=True)
    variance = jnp.square(grouped - mean).mean((1, 3), keepdims=True)
    normal = ((grouped - mean) * lax.rsqrt(variance + eps)).reshape(x.shape).astype(x.dtype)
    return normal * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _pixel_shuffle(x: Array, factor: int) -> Array:
    rows, height, width, _ = x.shape
    split = x.reshape(rows, height, width, -1, factor, factor)
    return split.transpose(0, 1, 4, 2, 5, 3).reshape(rows, height * factor, width * factor, -1)
