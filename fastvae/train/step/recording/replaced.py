"""Other tensors in place of a module's parameters and buffers, for as long as a context lasts."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def replaced(module: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Have a module compute with ``tensors`` in place of its parameters and buffers of these names.

    A tensor that has several names, because it or a layer is shared, is replaced under all of them, given one.
    torch.func.functional_call (2.14) leaves a shared layer with the replacement for good.
    """
    own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    others = {id(own[name]): tensor for name, tensor in tensors.items()}
    places = [
        (store, name, value)
        for part in module.modules()
        for store in (part._parameters, part._buffers)
        for name, value in store.items()
        if id(value) in others
    ]
    try:
        for store, name, value in places:
            store[name] = others[id(value)]  # type: ignore[assignment]  # any tensor computes as a parameter does
        yield
    finally:
        for store, name, value in places:
            store[name] = value  # type: ignore[assignment]
