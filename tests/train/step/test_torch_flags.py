"""torch's switches are set for a run, to what was asked, and put back."""

import os

import pytest
import torch

from fastvae.train.checkpoint import checkpoint
from fastvae.train.config import TrainConfig
from fastvae.train.measure import autotune
from fastvae.train.step.torch_flags import torch_flags
from fastvae.utils.errors import InputError

CPU, GPU = torch.device("cpu"), torch.device("cuda")  # the switches can be set where there is no GPU


def switches():
    return (
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.allow_tf32,
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    )


@pytest.mark.parametrize(
    ("settings", "device", "expected"),
    [
        ({}, CPU, ("highest", True, False, False, False, None)),
        ({}, GPU, ("highest", False, False, False, False, None)),
        ({"tf32": True}, GPU, ("high", True, False, False, False, None)),
        ({"deterministic": True}, CPU, ("highest", True, True, False, False, ":4096:8")),
        ({"deterministic": True, "tf32": True}, GPU, ("high", True, True, False, False, ":4096:8")),
    ],
)
@pytest.mark.parametrize("fails", [False, True])
def test_they_are_set_and_put_back(settings, device, expected, fails):
    before = switches()
    try:
        with torch_flags(TrainConfig(**settings), device):
            assert switches() == expected
            if fails:
                raise InterruptedError
    except InterruptedError:
        assert fails
    assert switches() == before


def test_what_the_user_set_is_what_comes_back(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        before = switches()
        with torch_flags(TrainConfig(deterministic=True), CPU):
            assert switches()[2:] == (True, False, False, ":16:8")
        assert switches() == before
    finally:
        torch.use_deterministic_algorithms(False)


def test_tf32_is_of_fp32():
    message = "--tf32 is about fp32, but --precision is bf16: use --precision fp32"
    with pytest.raises(InputError, match=message), torch_flags(TrainConfig(tf32=True, precision="bf16"), GPU):
        pass


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_deterministic_runs_are_equal_to_the_bit_and_make_no_trial(train, monkeypatch, precision):
    def trial(*arguments):
        raise AssertionError("a trial")

    monkeypatch.setattr(autotune, "choose", trial)
    flags = ("--epochs", "2", "--deterministic", "--autotune", "--precision", precision, "--clip-norm", "9000")
    runs = [checkpoint.newest(train(*flags, out=out)[1] / "checkpoints")[1].tensors for out in ("one", "two")]
    assert runs[0].keys() == runs[1].keys()
    for name, tensor in runs[0].items():
        assert torch.equal(tensor, runs[1][name]), name
