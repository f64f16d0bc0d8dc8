"""Models whose forward pass fastvae knows to be a pure function of tensors."""

from typing import Any

from torch import nn
from torch.nn.modules import module as torch_module

# Their forward passes compute the same operators at every call, for any values, in either mode.
_PURE = frozenset(
    {
        nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.CELU,
        nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.ELU,
        nn.Flatten, nn.GELU, nn.GroupNorm, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.Identity, nn.LayerNorm,
        nn.LeakyReLU, nn.Linear, nn.MaxPool1d, nn.MaxPool2d, nn.Mish, nn.ModuleDict, nn.ModuleList, nn.PReLU,
        nn.PixelShuffle, nn.PixelUnshuffle, nn.ReLU, nn.ReLU6, nn.ReflectionPad2d, nn.SELU, nn.Sequential,
        nn.SiLU, nn.Sigmoid, nn.Softplus, nn.Softsign, nn.Tanh, nn.Unflatten, nn.Upsample, nn.ZeroPad2d,
    }
)  # fmt: skip
# These compute something else in eval mode, so a record is of the modes that it was made in.
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_HOOKS = (
    "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_forward_hooks_with_kwargs",
)  # fmt: skip
_GLOBAL_HOOKS = (
    "_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks", "_global_backward_pre_hooks",
)  # fmt: skip


def is_known(model: nn.Module) -> bool:
    """Return whether a model consists of fastvae's own modules and of torch's pure ones, with nothing added to them.

    Its forward pass can then be recorded once and replayed without any check, as long as its :func:`state` is the same.
    """
    if any(getattr(torch_module, name, None) for name in _GLOBAL_HOOKS):
        return False
    return all(_is_pure(module) for module in model.modules()) and all(map(_is_plain, model.parameters()))


def is_repeatable(model: nn.Module) -> bool:
    """Return whether a known model computes the same twice in training mode, and changes no buffer by it."""
    return is_known(model) and not any(isinstance(module, _DROPOUTS + _NORMS) for module in model.modules())


def state(model: nn.Module) -> list[tuple[Any, ...]]:
    """Return what the forward pass of a model may depend on beside its tensors: its modules and their attributes.

    Two states are equal if no module, mode, plain attribute or method was replaced in between.
    """
    return [
        (
            id(module),
            type(module),
            [(name, _plain(value)) for name, value in vars(module).items() if name not in ("_parameters", "_buffers")],
            [(name, id(value)) for name, value in vars(type(module)).items() if callable(value)],
        )
        for module in model.modules()
    ]


def _plain(value: object) -> object:
    if isinstance(value, int | float | str | bytes | None):
        return value
    if isinstance(value, dict):
        return [(name, id(item)) for name, item in value.items()]
    return [*map(id, value)] if isinstance(value, list | tuple) else id(value)


def _is_pure(module: nn.Module) -> bool:
    kind = type(module)
    if kind in _NORMS and module.momentum is None:  # it reads the number of batches on the host
        return False
    if kind not in (*_PURE, *_DROPOUTS, *_NORMS) and not _is_ours(kind):
        return False
    if not ((kind.forward.__module__ or "").startswith("torch.") or _is_ours(kind)):  # replaced for the whole class
        return False
    hooks = (hook for name in _HOOKS for hook in (getattr(module, name, None) or {}).values())
    is_patched = any(callable(value) and hasattr(kind, name) for name, value in vars(module).items())
    return not is_patched and all(_is_ours(hook) for hook in hooks)


def _is_ours(hook: object) -> bool:
    return (getattr(hook, "__module__", None) or "").startswith("fastvae.")


def _is_plain(parameter: nn.Parameter) -> bool:
    return type(parameter) is nn.Parameter and not has_hooks(parameter)


def has_hooks(parameter: nn.Parameter) -> bool:
    """Return whether hooks are registered on a parameter's gradient."""
    return bool(getattr(parameter, "_backward_hooks", None) or getattr(parameter, "_post_accumulate_grad_hooks", None))
