"""One step of Adam or AdamW on the CPU that also writes low-precision copies of the weights, in one pass over memory.

There is no Triton kernel: on a GPU torch's own fused Adam is used, and where the extension is not built, on a CPU too
(:class:`fastvae.train.optim.adam.Adam` chooses).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fastvae.ops import _library

_library.define_of_cpu(
    "adam_step_(Tensor(a!)[] weights, Tensor(b!)[] exp_avgs, Tensor(c!)[] exp_avg_sqs, Tensor(d!)[] working, "
    "Tensor[] gradients, Tensor(e!)[] steps, Tensor? lr_tensor, float lr, float beta1, float beta2, float eps, "
    "float weight_decay, bool decoupled, Tensor? grad_scale, Tensor? found_inf) -> ()",
    lambda *arguments: None,
)


def adam_step_(
    weights: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    working: Sequence[Tensor],
    gradients: Sequence[Tensor],
    steps: Sequence[Tensor],
    *,
    lr: float | Tensor,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
) -> None:
    r"""Update many weights by Adam, in place; with ``working``, write their low-precision copies in the same pass.

    .. math:: m \leftarrow \beta_1 m + (1 - \beta_1) g, \quad v \leftarrow \beta_2 v + (1 - \beta_2) g^2, \quad
        w \leftarrow w - \eta \, \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}

    (Kingma & Ba 2015, algorithm 1). Weight decay :math:`\lambda` first changes the gradient to :math:`g + \lambda w`,
    or, if decoupled, the weight to :math:`w - \eta \lambda w` (AdamW: Loshchilov & Hutter 2019, algorithm 2). These are
    the semantics of ``torch.optim.Adam(fused=True)``, except that scaled gradients are not modified.

    All lists have one item per weight. The result does not depend on the number of threads.

    Args:
        weights: fp32 or fp64 tensors on the CPU, of any shapes, without gaps in memory.
        exp_avgs: m, in the dtypes, shapes and strides of the weights.
        exp_avg_sqs: v, in the dtypes, shapes and strides of the weights.
        working: bf16 or fp16 tensors of the same shapes and strides, which receive the new fp32 weights, rounded to
            nearest; or an empty list.
        gradients: g, of any strides, in the weight's dtype; for fp32 weights also bf16 or fp16.
        steps: t - 1, tensors of one fp32 or fp64 number each, which become t.
        lr: the learning rate; a number, or one fp32 or fp64 number in a tensor.
        betas: the coefficients of m and v.
        eps: added to the bias-corrected root.
        weight_decay: lambda; with 0, weights are not read for it.
        decoupled: decay weights as AdamW does.
        grad_scale: a tensor of one number that divides the gradients, or None.
        found_inf: a tensor of one number, or None; unless it is 0, nothing changes, not even the steps.

    Raises:
        ValueError: lengths, shapes or strides differ, weights have gaps, or the extension is not built.
        TypeError: an unsupported dtype, or a tensor that is sparse or not on the CPU.

    >>> weight, m, v, step = torch.ones(2), torch.zeros(2), torch.zeros(2), torch.tensor(0.0)
    >>> copy = weight.bfloat16()
    >>> adam_step_([weight], [m], [v], [copy], [torch.tensor([1.0, -2.0])], [step], lr=0.5)
    >>> weight, copy, step
    (tensor([0.5000, 1.5000]), tensor([0.5000, 1.5000], dtype=torch.bfloat16), tensor(1.))
    """
    if not _library.has_native():
        raise ValueError(
            "adam_step_ needs the C++ extension, which is not built: run `make setup`, or use torch's Adam"
        )
    if not (weights or gradients):
        return  # without tensors, the operator would not know its device
    lr_tensor, number = (lr, 0.0) if isinstance(lr, Tensor) else (None, lr)
    try:
        torch.ops.fastvae.adam_step_(
            weights, exp_avgs, exp_avg_sqs, working, gradients, steps, lr_tensor, number, *betas, eps, weight_decay,
            decoupled, grad_scale, found_inf,
        )  # fmt: skip
    except (RuntimeError, NotImplementedError) as error:
        # The operator checks everything before it writes. Only after it has refused, find the reason to report.
        lists = {"exp_avg": exp_avgs, "exp_avg_sq": exp_avg_sqs, "working": working, "gradient": gradients}
        numbers = {"lr": lr_tensor, "grad_scale": grad_scale, "found_inf": found_inf}
        raise (_fault(weights, lists, steps, numbers) or error) from None
    # So that a backward pass through the changed tensors is refused, as after any write in place.
    torch.autograd.graph.increment_version([*weights, *working])


_LOW = (torch.bfloat16, torch.float16)


def _fault(
    weights: Sequence[Tensor],
    lists: dict[str, Sequence[Tensor]],
    steps: Sequence[Tensor],
    numbers: dict[str, Tensor | None],
) -> Exception | None:
    """Return the error to raise for the arguments of a step, or None if they are right."""
    for name, tensors in {**lists, "step": steps}.items():
        if len(tensors) != len(weights) and (tensors or name != "working"):
            return ValueError(f"there are {len(weights)} weights, but {len(tensors)} of {name}: pass one each")
    singles = [(f"steps[{k}]", step) for k, step in enumerate(steps)]
    for name, number in [*singles, *((name, number) for name, number in numbers.items() if number is not None)]:
        if number.device.type != "cpu" or number.numel() != 1 or number.dtype not in (torch.float32, torch.float64):
            shape = tuple(number.shape)
            return TypeError(
                f"{name} must be one fp32 or fp64 number on the CPU, not {number.dtype} {shape} on {number.device}"
            )
    for k, weight in enumerate(weights):
        fault = _fault_of_weight(f"weights[{k}]", weight)
        for name, tensors in lists.items():
            if tensors:
                fault = fault or _fault_of_partner(f"weights[{k}]", weight, name, f"{name}s[{k}]", tensors[k])
        if fault is not None:
            return fault
    return None


def _fault_of_weight(name: str, weight: Tensor) -> Exception | None:
    if weight.dtype not in (torch.float32, torch.float64):
        return TypeError(f"{name} is {weight.dtype}, but master weights must be fp32 or fp64: pass copies as `working`")
    if weight.device.type != "cpu" or weight.layout != torch.strided:
        return TypeError(
            f"{name} is {weight.layout} on {weight.device}, but must be dense on the CPU: use torch's Adam"
        )
    if not torch.ops.aten.is_non_overlapping_and_dense(weight):
        return ValueError(
            f"{name} of shape {tuple(weight.shape)} has strides {weight.stride()}, which leave gaps in memory: "
            "make it contiguous"
        )
    return None


def _fault_of_partner(weight_name: str, weight: Tensor, role: str, name: str, tensor: Tensor) -> Exception | None:
    if tensor.shape != weight.shape:
        return ValueError(
            f"{name} has shape {tuple(tensor.shape)}, but {weight_name} has {tuple(weight.shape)}: "
            "both need the same shape"
        )
    if tensor.device.type != "cpu" or tensor.layout != torch.strided:
        return TypeError(
            f"{name} is {tensor.layout} on {tensor.device}, but must be dense on the CPU, as {weight_name}"
        )
    low = _LOW if weight.dtype == torch.float32 else ()
    allowed = {"gradient": (weight.dtype, *low), "working": low}.get(role, (weight.dtype,))
    if tensor.dtype not in allowed:
        needs = " or ".join(str(dtype) for dtype in allowed) or "no copy"
        return TypeError(f"{name} is {tensor.dtype}, but {weight_name}, which is {weight.dtype}, needs {needs}")
    if role != "gradient" and tensor.stride() != weight.stride():
        return ValueError(
            f"{name} has strides {tensor.stride()}, but {weight_name} has {weight.stride()}: "
            "make it with torch.empty_like"
        )
    return None
