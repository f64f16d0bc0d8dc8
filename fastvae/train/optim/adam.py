"""Adam and AdamW with master weights: the low-precision copies that a forward computes with are written in the step."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.optimizer import ParamsT

from fastvae import backends
from fastvae.ops.internal.adam_step import adam_step_


class Adam(torch.optim.Adam):
    r"""``torch.optim.Adam(fused=True)``, whose step also writes a low-precision copy of each weight.

    On the CPU, fp32 and fp64 parameters take :func:`.adam_step_`: one pass over memory, which reads low-precision
    gradients as they are. (Formula and citations are in that function.) All others, and all if the extension is not
    built, take torch's fused step, after which the copies are written.

    The state is torch's: ``state_dict`` and ``load_state_dict`` exchange it with ``torch.optim.Adam(fused=True)``, in
    both directions. Parameter groups, a learning rate in a tensor, hooks and ``torch.amp.GradScaler`` work as there
    (where torch's step unscales the gradients in place, the operator leaves them). There is no amsgrad and no maximize.

    Args:
        params: parameters, or groups of them.
        lr: the learning rate, a number or a tensor of one.
        betas: the coefficients of the running means of the gradient and of its square.
        eps: added to the corrected root of the mean square.
        weight_decay: the factor of the weights that is added to their gradients, as in Adam.
        decoupled_weight_decay: shrink the weights themselves by ``lr * weight_decay`` instead, as in AdamW.
        working: the bf16 or fp16 copies of those fp32 parameters that have one, in their shapes and strides (as
            ``weight.to(torch.bfloat16)`` makes them). Each step rewrites them; their first values are the caller's.

    >>> weight = torch.nn.Parameter(torch.ones(2))
    >>> copy = weight.detach().bfloat16()
    >>> optimizer = Adam([weight], lr=0.5, working={weight: copy})
    >>> optimizer.step_with([torch.tensor([1.0, -2.0], dtype=torch.bfloat16)])
    >>> copy
    tensor([0.5000, 1.5000], dtype=torch.bfloat16)
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        decoupled_weight_decay: bool = False,
        working: Mapping[Tensor, Tensor] | None = None,
    ) -> None:
        super().__init__(
            params, lr, betas, eps, weight_decay, fused=True, decoupled_weight_decay=decoupled_weight_decay
        )
        self.working = dict(working or {})

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies and pickles hold: torch's state, and the working copies."""
        return {**super().__getstate__(), "working": self.working}

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step with the parameters' ``grad``. Returns the loss of the closure, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.step_with([parameter.grad for group in self.param_groups for parameter in group["params"]])
        return loss

    @torch.no_grad()
    def step_with(self, gradients: Sequence[Tensor | None]) -> None:
        """Take one step with these gradients, in the order of the parameters; None leaves a parameter as it is.

        Those of fp32 parameters may be bf16 or fp16. The attributes ``grad_scale`` and ``found_inf``, which
        ``torch.amp.GradScaler`` sets, are honoured. The hooks of ``step`` are not run.

        Raises:
            ValueError: there are not as many gradients as parameters, shapes or strides differ, or a group asks for
                amsgrad or maximize.
            TypeError: a gradient or a working copy has an unsupported type.
        """
        count = sum(len(group["params"]) for group in self.param_groups)
        if len(gradients) != count:
            raise ValueError(f"there are {count} parameters, but {len(gradients)} gradients: pass one each, or None")
        self._opt_called = True  # the learning rate schedulers ask for it
        rest = iter(gradients)
        for group in self.param_groups:
            if group["amsgrad"] or group["maximize"]:
                raise ValueError(
                    f"a parameter group has amsgrad={group['amsgrad']} and maximize={group['maximize']}, but both must "
                    "be False: use torch.optim.Adam"
                )
            kinds: dict[tuple[bool, bool], list[tuple[Tensor, ...]]] = {}
            for weight, gradient in zip(group["params"], rest, strict=False):
                if gradient is not None:
                    state = self.state[weight] or self._new_state(weight)
                    copy = self.working.get(weight)
                    copies = () if copy is None else (copy,)
                    row = (weight, gradient, state["step"], state["exp_avg"], state["exp_avg_sq"], *copies)
                    kinds.setdefault((_native(weight), copy is not None), []).append(row)
            for (native, _), rows in kinds.items():
                lists = [list(tensors) for tensors in zip(*rows, strict=True)]
                (_native_step if native else _torch_step)(
                    lists, group, getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
                )

    def _new_state(self, weight: Tensor) -> dict[str, Tensor]:
        """Make the state of a parameter at its first step, as ``torch.optim.Adam(fused=True)`` makes it."""
        state: dict[str, Tensor] = self.state[weight]
        state["step"] = torch.zeros((), dtype=torch.float32, device=weight.device)
        state["exp_avg"] = torch.zeros_like(weight, memory_format=torch.preserve_format)
        state["exp_avg_sq"] = torch.zeros_like(weight, memory_format=torch.preserve_format)
        return state


def _native(weight: Tensor) -> bool:
    return backends.has_native() and weight.is_cpu and weight.dtype in (torch.float32, torch.float64)


def _native_step(
    lists: list[list[Tensor]], group: dict[str, Any], grad_scale: Tensor | None, found_inf: Tensor | None
) -> None:
    weights, gradients, steps, exp_avgs, exp_avg_sqs, *working = lists
    adam_step_(
        weights,
        exp_avgs,
        exp_avg_sqs,
        working[0] if working else [],
        gradients,
        steps,
        lr=group["lr"],
        betas=group["betas"],
        eps=group["eps"],
        weight_decay=group["weight_decay"],
        decoupled=group["decoupled_weight_decay"],
        grad_scale=grad_scale,
        found_inf=found_inf,
    )


def _cast_like(weight: Tensor, gradient: Tensor) -> Tensor:
    """Return the gradient in the type and strides of its weight, which torch's kernels demand."""
    if gradient.shape != weight.shape:
        raise ValueError(
            f"a gradient has shape {tuple(gradient.shape)}, but its parameter has {tuple(weight.shape)}: "
            "both need the same shape"
        )
    if gradient.dtype == weight.dtype and gradient.stride() == weight.stride():
        return gradient
    return torch.empty_like(weight).copy_(gradient)


def _torch_step(
    lists: list[list[Tensor]], group: dict[str, Any], grad_scale: Tensor | None, found_inf: Tensor | None
) -> None:
    weights, gradients, steps, exp_avgs, exp_avg_sqs, *working = lists
    adam(
        weights,
        [_cast_like(weight, gradient) for weight, gradient in zip(weights, gradients, strict=True)],
        exp_avgs,
        exp_avg_sqs,
        [],
        steps,
        fused=True,
        grad_scale=grad_scale,
        found_inf=found_inf,
        decoupled_weight_decay=group["decoupled_weight_decay"],
        amsgrad=False,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=False,
    )
    if working:
        torch._foreach_copy_(working[0], weights)
