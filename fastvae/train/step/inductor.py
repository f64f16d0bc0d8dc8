"""TorchInductor's cache folders: they hold machine code that torch loads, so nobody else may write to them."""

import atexit
import errno
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from fastvae.utils.errors import InputError
from fastvae.utils.files import own_folder, reason
from fastvae.utils.isolation import safe_path
from fastvae.utils.machine import cache_folder

_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


def keep_compiled() -> None:
    """Give TorchInductor a folder that nobody else can write to.

    torch's own choice, ``torchinductor_USER`` in the temporary folder, may have been made by somebody else, and is lost
    when the machine restarts. It is replaced by ``inductor`` beside fastvae's other caches; if that cannot be made, by
    a folder that lasts as long as this process.

    Raises:
        InputError: TORCHINDUCTOR_CACHE_DIR names a folder that somebody else can write to.
    """
    named = os.environ.get(_VARIABLE)
    if named is not None and not _is_torchs(Path(named)):
        try:
            own_folder(Path(named))
        except OSError as error:
            raise InputError(
                f"{_VARIABLE} is {named}, which {reason(error)}: compiled code is loaded from there, so name a folder "
                "of your own, or unset it"
            ) from error
        return
    try:
        folder = own_folder(own_folder(cache_folder()) / "inductor")
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="fastvae-inductor-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ[_VARIABLE] = str(folder)


def spare_dynamo() -> None:
    """Have torch's optimisers do without torch._dynamo in this process: importing it takes 1.4 s.

    torch imports it at the first call of these methods, to keep torch.compile out of them. No command of fastvae has
    torch.compile trace an optimiser; a program that imports fastvae might, and is left alone.
    """
    for name in ("add_param_group", "load_state_dict", "state_dict", "zero_grad"):
        method = getattr(getattr(torch.optim.Optimizer, name), "__wrapped__", None)
        if method is not None:  # torch's wrapper calls this instead, once it is set
            method.__dynamo_disable = method


@contextmanager
def compiling() -> Iterator[None]:
    """Return a context to compile in: torch uses this user's own folders and never imports from the current one.

    torch probes each instruction set by ``python -c "from ctypes import ..."``, which would import a ``ctypes.py`` in
    the current folder. Raises InputError if the folders cannot be made.
    """
    keep_compiled()
    claim_shared()
    # It warns, above a run's own lines, that it finds no CUDA when it looks for CUDA's compiler.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    if sys.version_info < (3, 11):  # Python has no variable against that yet, but torch has one against the probe
        os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "1")
    with safe_path(by_variable=True):
        yield


def compiler_of(device: torch.device) -> str | None:
    """Return the path of the compiler that TorchInductor calls: C++ for a CPU, C for a GPU; None without one."""
    names = [os.environ.get("CXX") or "g++"]
    if device.type == "cuda":  # Triton's choice, for what launches its kernels
        names = [os.environ.get("CC") or "gcc", "clang"]
    return next(filter(None, map(shutil.which, names)), None)


def check_compiler(device: torch.device) -> None:
    """Raise InputError if --execution compiled has no compiler."""
    if compiler_of(device) is None:
        variable, package = ("CC", "gcc") if device.type == "cuda" else ("CXX", "g++")
        raise InputError(
            f"--execution compiled needs a compiler, but there is no {os.environ.get(variable) or package}: install "
            f"{package} (apt-get install {package}), set {variable} to a compiler, or use --execution traced"
        )


@contextmanager
def faults_told() -> Iterator[None]:
    """Turn any error of a compilation inside this context into InputError: compilers and torch raise all kinds."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        said = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise InputError(f"TorchInductor cannot compile the step ({said}): use --execution traced") from error


def claim_shared() -> None:
    """Make torch's folder in the temporary one this user's own, before torch writes the headers there that it compiles.

    torch does so whatever TORCHINDUCTOR_CACHE_DIR says.

    Raises:
        InputError: somebody else has made it, or can write to it.
    """
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir  # noqa: PLC0415 -- a second to import

    folder = Path(default_cache_dir())
    try:
        if folder.is_symlink():
            raise OSError(errno.ELOOP, "is a link")
        own_folder(folder)
    except OSError as error:
        raise InputError(
            f"{folder} {reason(error)}: torch compiles with what lies there, so remove it, set TMPDIR to a folder of "
            "your own, or use --execution traced"
        ) from error


def _is_torchs(folder: Path) -> bool:
    """Return whether torch chose the folder: `import torch._dynamo` sets the variable if nobody has."""
    return folder.parent == Path(tempfile.gettempdir()) and folder.name.startswith("torchinductor_")
