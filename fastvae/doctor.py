"""``fastvae doctor``: a table of the packages, devices and backends found, with a remedy for each that is missing."""

import importlib.metadata
import importlib.util
import os
import platform
from fnmatch import fnmatch

import torch
from rich.table import Table

from fastvae import ops
from fastvae._command import WAITING
from fastvae.backends import capability, has_native, has_triton, multiplies_bf16
from fastvae.utils.machine import device_name
from fastvae.utils.terminal import Terminal
from fastvae.utils.version import __version__

# The extras that pip installs, and the package of each. DALI has a package for each version of CUDA.
_OPTIONAL = {"dali": "nvidia-dali-cuda*", "hdf5": "h5py", "hf": "datasets", "jax": "jax"}


def examine() -> int:
    """Print the table. Returns 0 if everything that this machine can use is installed and works, else 1.

    A missing optional package is not a fault: the table says how to install it, and the status stays 0.
    """
    table = Table("", "found", "to fix", title="fastvae doctor", title_justify="left")
    findings = [*_versions(), *_optional(), *_devices(), _waiting(), *_backends(), _data()]
    for name, found, remedy in findings:
        table.add_row(name, found, remedy)
    Terminal().print(table, soft_wrap=False)
    return 1 if any(remedy for _, _, remedy in findings) else 0


def _versions() -> list[tuple[str, str, str]]:
    rows = [("fastvae", __version__, ""), ("Python", platform.python_version(), "")]
    for package, wanted in (("torch", ""), ("torchvision", ""), ("triton", "pip install triton"), ("numpy", "")):
        try:
            rows.append((package, importlib.metadata.version(package), ""))
        except importlib.metadata.PackageNotFoundError:
            rows.append((package, "missing", wanted or f"pip install {package}"))
    return rows


def _optional() -> list[tuple[str, str, str]]:
    """List the optional packages by pip's metadata, since importing each would take long."""
    installed = {distribution.name.lower(): distribution.version for distribution in importlib.metadata.distributions()}
    rows = []
    for extra, pattern in _OPTIONAL.items():
        versions = [version for name, version in installed.items() if fnmatch(name, pattern)]
        found = versions[0] if versions else f"not installed: pip install fastvae[{extra}]"
        rows.append((pattern.removesuffix("-cuda*"), found, ""))
    return rows


def _devices() -> list[tuple[str, str, str]]:
    cpu = f"{device_name(torch.device('cpu'))}, {torch.get_num_threads()} threads"
    rows = [("CPU", cpu, "")]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            memory = torch.cuda.get_device_properties(index).total_memory / 2**30
            rows.append((f"GPU {index}", f"{device_name(torch.device('cuda', index))}, {memory:.0f} GiB", ""))
    elif os.path.exists("/dev/nvidiactl"):
        rows.append(("GPU", "present, but torch cannot use it", "install torch's CUDA build and a matching driver"))
    else:
        rows.append(("GPU", "none: training runs on the CPU", ""))
    return rows


def _waiting() -> tuple[str, str, str]:
    """Show the variable by which OpenMP's threads know how to wait for each other."""
    given = [f"{name}={os.environ[name]}" for name in WAITING if name in os.environ]
    found = ", ".join(given) or "GOMP_SPINCOUNT is not set: threads spin for long"
    return "waiting threads", f"{found} (in scripts: import fastvae before torch, or export it)", ""


def _backends() -> list[tuple[str, str, str]]:
    if has_native():
        matmuls = ", its own bf16 matmuls" if multiplies_bf16() else ""
        native = ("native (C++)", f"ready, {capability()} code{matmuls}", "")
    else:
        native = ("native (C++)", "not built: the CPU runs the eager reference", "install g++, then `make setup`")
    if not has_triton():
        triton = ("triton", "missing", "pip install triton")
    elif torch.cuda.is_available():
        fault = _fault_of_a_launch()
        triton = ("triton", "ready", "") if fault is None else ("triton", *fault)
    else:
        triton = ("triton", "ready, but needs a GPU", "")
    return [native, triton, ("reference", "ready", "")]


def _fault_of_a_launch(device: str = "cuda") -> tuple[str, str] | None:
    """Launch a kernel and return the fault and its remedy, if it fails: an installed Triton may lack a C compiler."""
    try:
        latents = torch.zeros(1, 1, device=device)
        ops.gaussian_kl(latents, latents, backend="triton").item()
    except Exception as error:  # drivers, compilers and the libraries below them raise all kinds
        said = (str(error) or type(error).__name__).splitlines()[0]
        needs_compiler = "C compiler" in said
        remedy = "apt-get install gcc python3-dev" if needs_compiler else "try --backend reference"
        return f"launches no kernel: {said}", remedy
    return None


def _data() -> tuple[str, str, str]:
    folder = os.environ.get("FASTVAE_DATA")
    if folder is None:
        return "FASTVAE_DATA", "not set: data sets are downloaded, digits is embedded", ""
    if not os.path.isdir(folder):
        return "FASTVAE_DATA", f"{folder} is not a folder", "set it to a folder, or unset it"
    return "FASTVAE_DATA", folder, ""
