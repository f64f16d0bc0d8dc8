"""The registered operators themselves: torch's own checks, and the one that mutates."""

import subprocess
from typing import Any

import pytest
import torch

from fastvae import ops
from fastvae.ops import _library
from fastvae.ops.internal import (
    adam_step,
    all_finite,
    arrive_and_wait,
    bias_gradient,
    group_norm_silu,
    linear_bernoulli_nll_of_samples,
    mm,
    onednn_linear,
    pixel_shuffle,
    record_step,
    scale_pixels,
)
from fastvae.reference import gaussian_kl

from .operator_samples import samples

# Which declare what only the CPU has.
OF_CPU = (
    adam_step,
    all_finite,
    arrive_and_wait,
    bias_gradient,
    group_norm_silu,
    linear_bernoulli_nll_of_samples,
    mm,
    onednn_linear,
    pixel_shuffle,
    scale_pixels,
)


@pytest.fixture(scope="module")
def operators() -> Any:
    """The registered operators, on a device that has them."""
    if torch.cuda.is_available() or _library.has_native():
        return torch.ops.fastvae
    return pytest.skip("neither the C++ extension nor a CUDA device")


NAMES = tuple(samples((1, 1), torch.float32, "cpu"))
# The others are declared in the same way.
QUICK = ("bernoulli_nll", "bernoulli_nll_backward", "reparameterize", "adam_step_", "mm", "scale_gradient_")


def test_every_operator_is_checked_here() -> None:
    assert record_step  # is imported, as that declares its operator
    assert set(NAMES) == {*_library._modules, *_library._compositions, *_library._of_cpu}
    assert len(OF_CPU) + 2 == len(_library._of_cpu)  # a norm has two, and so has a pixel shuffle


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((3, 5), torch.float32), pytest.param((4, 3, 2, 2), torch.bfloat16, marks=pytest.mark.slow)],
    ids=str,
)
@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NAMES])
def test_opcheck(operators: Any, device: str, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    found = samples(shape, dtype, device)[name]
    # Every reduction and every source of noise in fp32; in bf16, the first and the last of them.
    for arguments in found if dtype == torch.float32 or len(found) < 3 else (found[0], found[-1]):
        torch.library.opcheck(getattr(operators, name).default, arguments)


# The places of mu and logvar in a schema: these may be halves of a packed head. All other tensors are dense.
LATENTS = {
    "gaussian_kl": (0, 1),
    "gaussian_kl_backward": (1, 2),
    "free_bits_kl": (0, 1),
    "free_bits_kl_backward": (2, 3),
    "gaussian_prior_kl": (0, 1, 2, 3),
    "gaussian_prior_kl_backward": (1, 2, 3, 4),
    "reparameterize": (0, 1),
    "reparameterize_backward": (1,),
    "reparameterize_kl": (0, 1),
    "reparameterize_kl_backward": (2, 3),
    "reparameterize_log_ratio": (0, 1),
    "reparameterize_log_ratio_backward": (2, 3),
}


@pytest.mark.parametrize("name", LATENTS)
def test_opcheck_of_packed_halves(operators: Any, device: str, name: str) -> None:
    for arguments in samples((4, 6), torch.float32, device)[name]:
        strided = [
            torch.cat((argument, argument), 1)[:, 6:] if at in LATENTS[name] else argument
            for at, argument in enumerate(arguments)
        ]
        torch.library.opcheck(getattr(operators, name).default, tuple(strided), test_utils=("test_faketensor",))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_scale_gradient_multiplies_in_place(operators: Any, device: str, dtype: torch.dtype) -> None:
    for shape in ((7, 33), (0,), (1,), (3, 1027)):
        gradient = torch.randn(shape, device=device).to(dtype)
        original = gradient.clone()
        address = gradient.data_ptr()
        loss_type = torch.float64 if dtype == torch.float64 else torch.float32
        operators.scale_gradient_(gradient, torch.ones((), dtype=loss_type, device=device))
        assert torch.equal(gradient, original)
        operators.scale_gradient_(gradient, torch.full((), -1.5, dtype=loss_type, device=device))
        assert torch.equal(gradient, (original.to(loss_type) * -1.5).to(dtype))
        assert gradient.data_ptr() == address


def test_auto_takes_the_fused_path(operators: Any, device: str) -> None:
    mu = torch.randn(4, 5, device=device, requires_grad=True)
    loss = ops.gaussian_kl(mu, mu.detach())
    assert "FusedLoss" in type(loss.grad_fn).__name__
    assert torch.allclose(loss, gaussian_kl(mu, mu.detach()))


@pytest.mark.parametrize(
    "fault",
    [
        RuntimeError("Failed to find C compiler. Please specify via CC environment variable."),  # Triton's own words
        subprocess.CalledProcessError(1, ["gcc", "-I/usr/include/python3.12"]),  # no Python.h
        FileNotFoundError(2, "No such file or directory", "cc"),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_a_launch_without_a_c_compiler_says_what_to_install(fault: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def launcher(*_: Any) -> None:
        raise fault

    monkeypatch.setattr(_library, "_launcher", lambda name: launcher)
    with pytest.raises(RuntimeError, match=r"gaussian_kl \(.*\): install a C compiler .* gcc python3-dev.*reference"):
        _library._launch("gaussian_kl")


def test_a_launch_that_fails_otherwise_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def launcher(*_: Any) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(_library, "_launcher", lambda name: launcher)
    with pytest.raises(RuntimeError, match=r"^CUDA error"):
        _library._launch("gaussian_kl")
