"""Versions, device and ``fastvae doctor``, and the launch of a first Triton kernel."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch

import fastvae

from .section import ROOT, Section

PACKAGES = ("torch", "triton", "numpy", "torchvision", "fastvae")


def run(section: Section) -> str:
    device = section.device
    section.keep(versions=versions(), commit=_output("git", "-C", str(ROOT), "rev-parse", "HEAD"))
    if device.type == "cuda" and not torch.cuda.is_available():
        section.keep(device="no GPU")
        section.fail("torch sees no GPU: see `fastvae doctor`, or try --dry")
        return "no GPU"
    from fastvae.utils.machine import device_name  # noqa: PLC0415 -- if it fails, the versions are already recorded

    section.keep(device=device_name(device), **(properties() if device.type == "cuda" else {}))
    origin = Path(fastvae.__file__)
    if ROOT not in origin.parents:
        section.fail(f"fastvae is that of {origin.parent}, not of {ROOT}: uninstall it there, or use another Python")
    doctor = section.fastvae("doctor", "doctor").wait()
    section.keep(doctor=[text.strip() for text in doctor.text.splitlines() if text.strip()])
    launch(device)
    told = ", ".join(f"{package} {version}" for package, version in section.figures["versions"].items())
    mend = "" if doctor.status == 0 else "; doctor has something to mend"
    return f"{section.figures['device']}; {told}{mend}"


def versions() -> dict[str, str | None]:
    """Return the versions of everything that affects compiled code; None for what is not installed."""
    found: dict[str, str | None] = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    found["CUDA"] = torch.version.cuda
    found["driver"] = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    has_cudnn = torch.cuda.is_available() and torch.backends.cudnn.is_available()
    found["cuDNN"] = str(torch.backends.cudnn.version()) if has_cudnn else None
    found["NCCL"] = ".".join(map(str, torch.cuda.nccl.version())) if torch.cuda.is_available() else None
    return found


def properties() -> dict[str, object]:
    found = torch.cuda.get_device_properties(0)
    return {
        "gpus": torch.cuda.device_count(),
        "memory_gib": round(found.total_memory / 2**30, 1),
        "multiprocessors": found.multi_processor_count,
        "capability": f"{found.major}.{found.minor}",
        "clocks": _output("nvidia-smi", "--query-gpu=clocks.sm,clocks.max.sm,clocks.mem", "--format=csv,noheader"),
    }


def launch(device: torch.device) -> None:
    """Launch a kernel. Without a C compiler, Triton raises here rather than in every test."""
    from fastvae import ops  # noqa: PLC0415

    ops.bernoulli_nll(torch.zeros(2, 3, device=device), torch.zeros(2, 3, device=device), backend="triton")


def _output(*words: str) -> str | None:
    """Return the first line that a command prints, or None if it fails."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip().partition("\n")[0] or None
