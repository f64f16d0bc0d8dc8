"""Models whose forward pass fastvae knows to be a pure function of tensors."""

from torch import nn
from torch.nn.modules import module as torch_module

# Their forward passes compute the same operators at every call, in training and in eval mode, for any values.
_PURE = frozenset(
    {
        nn.CELU, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.ELU,
        nn.Flatten, nn.GELU, nn.GroupNorm, nn.Hardswish, nn.Hardtanh, nn.Identity, nn.LayerNorm, nn.LeakyReLU,
        nn.Linear, nn.Mish, nn.PReLU, nn.PixelShuffle, nn.PixelUnshuffle, nn.ReLU, nn.ReLU6, nn.SELU, nn.Sequential,
        nn.SiLU, nn.Sigmoid, nn.Softplus, nn.Tanh, nn.Unflatten, nn.Upsample,
    }
)  # fmt: skip
_HOOKS = (
    "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_forward_hooks_with_kwargs",
)  # fmt: skip
_GLOBAL_HOOKS = (
    "_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks", "_global_backward_pre_hooks",
)  # fmt: skip


def is_known(model: nn.Module) -> bool:
    """Return whether a model consists of fastvae's own modules and of torch's pure ones, with nothing added to them.

    Its forward pass can then be recorded once and replayed without any check.
    """
    if any(getattr(torch_module, name, None) for name in _GLOBAL_HOOKS):
        return False
    return all(_is_pure(module) for module in model.modules()) and all(map(_is_plain, model.parameters()))


def _is_pure(module: nn.Module) -> bool:
    kind = type(module)
    if kind not in _PURE and not kind.__module__.startswith("fastvae."):
        return False
    return "forward" not in vars(module) and not any(getattr(module, name, None) for name in _HOOKS)


def _is_plain(parameter: nn.Parameter) -> bool:
    return type(parameter) is nn.Parameter and not has_hooks(parameter)


def has_hooks(parameter: nn.Parameter) -> bool:
    """Return whether hooks are registered on a parameter's gradient."""
    return bool(getattr(parameter, "_backward_hooks", None) or getattr(parameter, "_post_accumulate_grad_hooks", None))
