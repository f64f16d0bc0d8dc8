"""The forms in memory that the tensors of a user's own model may have."""

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor

from fastvae.utils.errors import InputError


def check_forms(parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> None:
    """Refuse tensors that a run could not train, restore after a bad step, or save, as they lie in memory.

    Raises:
        InputError: a tensor is sparse or quantized; or a parameter has gaps between its elements, has elements that are
            one, or shares memory with another parameter, as ``a.weight.data = b.weight.data`` makes it.
    """
    for name, tensor in {**parameters, **buffers}.items():
        if tensor.layout != torch.strided or tensor.is_quantized:
            form = "quantized" if tensor.is_quantized else str(tensor.layout).removeprefix("torch.")
            raise InputError(
                f"{name} is {form}, but parameters and buffers must be dense: keep its parts in dense buffers, and "
                "build it in forward"
            )
    for name, tensor in parameters.items():
        if not _is_dense(tensor):
            raise InputError(
                f"{name} of shape {tuple(tensor.shape)} has strides {tensor.stride()}, so that its elements do not lie "
                "side by side in memory: make it with nn.Parameter(value.contiguous())"
            )
    _check_apart(parameters)


def _is_dense(tensor: Tensor) -> bool:
    """Return whether the elements of a tensor fill its memory, each once, in any order of the dimensions."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size == 0:
            return True
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


def _check_apart(parameters: Mapping[str, Tensor]) -> None:
    """Refuse two parameters with one memory: any conversion of the model would part them, in silence."""
    places = sorted(
        (tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes, name)
        for name, tensor in parameters.items()
        if tensor.numel() > 0
    )
    for (_, end, name), (begin, _, other) in itertools.pairwise(places):
        if begin < end:
            raise InputError(
                f"{name} and {other} are two parameters that share memory: let both layers have one parameter "
                "(a.weight = b.weight), or use it transposed in forward"
            )
