"""State of a user's own model that training changes, and no checkpoint has: Python numbers, and loose tensors."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from fastvae.utils.terminal import Terminal

_NUMBERS = (bool, int, float)
_NAMED = 3  # attributes in the line


@contextmanager
def unsaved_state_told(model: nn.Module, console: Terminal) -> Iterator[None]:
    """Say in a line, at the end of the context, which Python numbers and loose tensors of a model it has changed.

    A run that resumes would begin with those of a new model, in silence.
    """
    numbers = _numbers(model)
    tensors = _loose_tensors(model)
    try:
        yield
    finally:
        now = _numbers(model)
        names = [name for name, value in now.items() if repr(value) != repr(numbers.get(name))]  # a NaN is as before
        for name, (tensor, version) in _loose_tensors(model).items():
            if name in tensors and (tensor is not tensors[name][0] or version != tensors[name][1]):
                names.append(name)
        names.sort()
        if names:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            console.print(
                f"fastvae: training changed {', '.join(names[:_NAMED])}{more} of the model, which no checkpoint has: a "
                "resumed run begins with the values of a new model; keep them in buffers (register_buffer)",
                style="yellow",
                markup=False,
            )


def _numbers(model: nn.Module) -> dict[str, object]:
    """Return the attributes that are numbers, or lists or tuples of numbers, by their full names."""
    return {
        f"{name}.{key}" if name else key: list(value) if isinstance(value, list | tuple) else value
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, _NUMBERS)
        or (isinstance(value, list | tuple) and all(isinstance(each, _NUMBERS) for each in value))
    }


def _loose_tensors(model: nn.Module) -> dict[str, tuple[Tensor, int]]:
    """Return the tensors that are no parameters and in no state dict, each with its count of changes in place.

    A tensor that only a forward pass puts there, a loss that it keeps for example, is not there before the first.
    """
    return {
        f"{name}.{key}" if name else key: (value, value._version)
        for name, module in model.named_modules()
        for key, value in (*vars(module).items(), *module._buffers.items())
        if isinstance(value, Tensor)
        and not value.is_inference()
        and not value.requires_grad
        and (key not in module._buffers or key in module._non_persistent_buffers_set)
    }
