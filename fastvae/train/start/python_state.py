"""Python attributes of a user's own model that training changes, which no checkpoint has."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from fastvae.utils.terminal import Terminal

_NUMBERS = (bool, int, float)
_NAMED = 3  # attributes in the line


@contextmanager
def unsaved_state_told(model: nn.Module, console: Terminal) -> Iterator[None]:
    """Say in a line, at the end of the context, which Python numbers of a model it has changed.

    A run that resumes would begin with those of a new model, in silence.
    """
    before = _numbers(model)
    try:
        yield
    finally:
        after = _numbers(model)
        names = sorted(name for name in after if after[name] != before.get(name))
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
