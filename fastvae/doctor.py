"""``fastvae doctor``: what is here, what is missing, and how to get it."""

import importlib.metadata
import importlib.util
import os
import platform
from fnmatch import fnmatch

import torch
from rich.table import Table

from fastvae.backends import capability, has_native, has_triton, multiplies_bf16
from fastvae.utils.machine import device_name
from fastvae.utils.version import __version__

from . import ops
from .utils.terminal import Terminal

# The extras that pip installs, and the package of each; DALI has one for each CUDA.
_OPTIONAL = {"dali": "nvidia-dali-cuda*", "hdf5": "h5py", "hf": "datasets"}


def examine() -> int:
    """Print a table of findings. Returns 0 if everything that this machine could use is there, else 1.

    An optional package that is not there is nothing to mend: the table says how to get it.
    """
    table = Table("", "found", "to mend", title="fastvae doctor", title_justify="left")
    findings = [*_versions(), *_optional(), *_devices(), *_backends(), _data()]
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
    """By what pip knows, since each takes long to import."""
    here = {distribution.name.lower(): distribution.version for distribution in importlib.metadata.distributions()}
    rows = []
    for extra, pattern in _OPTIONAL.items():
        versions = [version for name, version in here.items() if fnmatch(name, pattern)]
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
        rows.append(("GPU", "there, but torch cannot use it", "install torch's CUDA build and a matching driver"))
    else:
        rows.append(("GPU", "none: training runs on the CPU", ""))
    return rows


def _backends() -> list[tuple[str, str, str]]:
    if has_native():
        products = ", its own bf16 products" if multiplies_bf16() else ""
        native = ("native (C++)", f"ready, {capability()} code{products}", "")
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
    """Launch a kernel; return the fault and its remedy, if any: an installed Triton may lack a compiler."""
    try:
        latents = torch.zeros(1, 1, device=device)
        ops.gaussian_kl(latents, latents, backend="triton").item()
    except Exception as error:  # a driver, a compiler and what they call may raise anything
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
        return "FASTVAE_DATA", f"{folder} is no folder", "set it to a folder, or unset it"
    return "FASTVAE_DATA", folder, ""
