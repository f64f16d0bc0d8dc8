"""Errors of the fused Adam step: the exact type, both offending values, and what to do."""

from typing import Any

import pytest
import torch

from fastvae.ops import _library
from fastvae.ops.internal import adam_step
from fastvae.ops.internal.adam_step import adam_step_

pytestmark = [pytest.mark.usefixtures("backend"), pytest.mark.parametrize("backend", ["native"], indirect=True)]

W = torch.ones(2, 3)
ERRORS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "gradients": ({"gradients": []}, ValueError, "there are 1 weights, but 0 of gradient: pass one each"),
    "working": ({"working": [W] * 2}, ValueError, "there are 1 weights, but 2 of working"),
    "steps": ({"steps": []}, ValueError, "there are 1 weights, but 0 of step"),
    "shape": (
        {"gradients": [torch.ones(3, 2)]},
        ValueError,
        "gradients[0] has shape (3, 2), but weights[0] has (2, 3): both need the same shape",
    ),
    "broadcast": ({"exp_avgs": [torch.ones(3)]}, ValueError, "exp_avgs[0] has shape (3,), but weights[0] has (2, 3)"),
    "moment": (
        {"exp_avg_sqs": [W.double()]},
        TypeError,
        "exp_avg_sqs[0] is torch.float64, but weights[0], which is torch.float32, needs torch.float32",
    ),
    "gradient type": (
        {"gradients": [W.double()]},
        TypeError,
        "gradients[0] is torch.float64, but weights[0], which is torch.float32, needs torch.float32 or torch.bfloat16",
    ),
    "integers": ({"gradients": [W.int()]}, TypeError, "gradients[0] is torch.int32, but weights[0]"),
    "working type": (
        {"working": [W]},
        TypeError,
        "workings[0] is torch.float32, but weights[0], which is torch.float32, needs torch.bfloat16 or torch.float16",
    ),
    "working of fp64": (
        {name: [W.double()] for name in ("weights", "exp_avgs", "exp_avg_sqs", "gradients")} | {"working": [W.half()]},
        TypeError,
        "workings[0] is torch.float16, but weights[0], which is torch.float64, needs no copy",
    ),
    "low weights": ({"weights": [W.half()]}, TypeError, "weights[0] is torch.float16, but master weights must be fp32"),
    "gaps": (
        {"weights": [torch.ones(2, 6)[:, ::2]]},
        ValueError,
        "weights[0] of shape (2, 3) has strides (6, 2), which leave gaps in memory: make it contiguous",
    ),
    "strides": (
        {"exp_avgs": [torch.ones(3, 2).t()]},
        ValueError,
        "exp_avgs[0] has strides (1, 2), but weights[0] has (3, 1): make it with torch.empty_like",
    ),
    "sparse": ({"gradients": [W.to_sparse()]}, TypeError, "gradients[0] is torch.sparse_coo on cpu, but must be dense"),
    "lr": (
        {"lr": torch.ones(2)},
        TypeError,
        "lr must be one fp32 or fp64 number on the CPU, not torch.float32 (2,) on cpu",
    ),
    "step": ({"steps": [torch.zeros((), dtype=torch.int64)]}, TypeError, "steps[0] must be one fp32 or fp64 number"),
    "scale": ({"grad_scale": torch.ones((), dtype=torch.bfloat16)}, TypeError, "grad_scale must be one fp32 or fp64"),
    "found_inf": (
        {"found_inf": torch.ones((), dtype=torch.bool)},
        TypeError,
        "found_inf must be one fp32 or fp64 number",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str) -> None:
    change, exception, message = ERRORS[name]
    arguments: dict[str, Any] = {
        "weights": [W.clone()], "exp_avgs": [W.clone()], "exp_avg_sqs": [W.clone()], "working": [],
        "gradients": [W.clone()], "steps": [torch.zeros(())], "lr": 0.1,
    }  # fmt: skip
    arguments |= change
    with pytest.raises(exception) as caught:
        adam_step_(**arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_device_is_named() -> None:
    """Call the check itself: torch's dispatcher refuses a GPU's tensors first, and nothing refuses meta tensors."""
    meta = W.to("meta")
    step = torch.zeros(())
    for weight, gradient, message in (
        (meta, W, "weights[0] is torch.strided on meta, but must be dense on the CPU: use torch's Adam"),
        (W, meta, "gradients[0] is torch.strided on meta, but must be dense on the CPU, as weights[0]"),
    ):
        fault = adam_step._fault([weight], {"gradient": [gradient]}, [step], {})
        assert isinstance(fault, TypeError)
        assert str(fault) == message
    assert "on meta" in str(adam_step._fault([W], {}, [step.to("meta")], {}))


def test_the_missing_extension_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_library, "_NATIVE", False)
    with pytest.raises(ValueError, match="needs the C\\+\\+ extension, which is not built: run `make setup`"):
        adam_step_([], [], [], [], [], [], lr=0.1)
