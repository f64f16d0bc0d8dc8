"""torch's global flags (TF32, determinism), set for one run and restored after it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fastvae.train.config import TrainConfig
from fastvae.utils.errors import InputError

_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def torch_flags(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """Set what ``--tf32`` and ``--deterministic`` ask for.

    Raises:
        InputError: TF32 without a GPU, or with matmuls that are not in fp32.
    """
    if config.tf32 and device.type != "cuda":
        raise InputError(f"--tf32 needs a GPU, but the run is on {device}: leave it out")
    if config.tf32 and config.precision not in ("auto", "fp32"):
        raise InputError(f"--tf32 is about fp32, but --precision is {config.precision}: use --precision fp32")
    with _tf32(config.tf32, device), _deterministic(config.deterministic):
        yield


@contextmanager
def _tf32(allowed: bool, device: torch.device) -> Iterator[None]:
    if device.type != "cuda":
        yield
        return
    # This is the older of torch's two interfaces, the one that TorchInductor reads. It raises once fp32_precision was
    # set for the matmuls alone (torch 2.14). Convolutions use TF32 unless that is switched off.
    matmuls = torch.get_float32_matmul_precision()
    convolutions = torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matmuls)
        torch.backends.cudnn.allow_tf32 = convolutions


@contextmanager
def _deterministic(wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    enabled = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    workspace = os.environ.get(_CUBLAS)
    os.environ.setdefault(_CUBLAS, ":4096:8")  # cuBLAS reads it at its first call; torch asks for it
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warns)
        torch.backends.cudnn.benchmark = benchmark
        if workspace is None:
            del os.environ[_CUBLAS]
