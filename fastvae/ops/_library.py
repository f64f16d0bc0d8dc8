"""The registry of operators: one schema each, in Python, so that the package works without its C++ extension.

On the CPU, the C++ extension registers its implementations when it is loaded here. On CUDA, the implementation is the
Triton launcher of the same name and signature in ``fastvae.kernels``, imported at its first call. If neither is there,
``backend="auto"`` takes the eager reference.
"""

import ctypes
import functools
import importlib
import importlib.util
import os
import subprocess
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from fastvae.utils import machine

Backend = machine.Backend

_library = torch.library.Library("fastvae", "DEF")
_modules: dict[str, str] = {}
_compositions: dict[str, Callable[..., Any]] = {}
_of_cpu: set[str] = set()


def define(schema: str, fake: Callable[..., Any], *, module: str) -> None:
    """Declare an operator: its schema, its shape function, and the module of ``fastvae.kernels`` that launches it."""
    name = schema.partition("(")[0]
    _modules[name] = module
    _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    torch.library.register_fake(f"fastvae::{name}", fake, lib=_library)
    _library.impl(name, lambda *args: _launch(name, *args), "CUDA")


def define_of_cpu(schema: str, fake: Callable[..., Any], implementation: Callable[..., Any] | None = None) -> None:
    """Declare an operator of the CPU alone: on other devices torch's own is as good.

    The C++ extension implements it, unless an ``implementation`` is given.
    """
    name = schema.partition("(")[0]
    _of_cpu.add(name)
    _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    torch.library.register_fake(f"fastvae::{name}", fake, lib=_library)
    if implementation is not None:
        _library.impl(name, implementation, "CPU")


def compose(schema: str, fake: Callable[..., Any], implementation: Callable[..., Any]) -> None:
    """Declare an operator made of others: ``implementation(operators, *arguments)`` calls them, in any backend.

    torch.compile sees it as one node, whatever the implementation does.
    """
    name = schema.partition("(")[0]
    _compositions[name] = implementation
    _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    torch.library.register_fake(f"fastvae::{name}", fake, lib=_library)
    for key in ("CPU", "CUDA"):
        _library.impl(name, lambda *args: implementation(torch.ops.fastvae, *args), key)


@functools.cache
def _launcher(name: str) -> Callable[..., Any]:
    """The Triton launcher of an operator. Triton is first imported here."""
    launcher: Callable[..., Any] = getattr(importlib.import_module(f"fastvae.kernels.{_modules[name]}"), name)
    return launcher


def _load_extension() -> bool:
    """Load the C++ extension; return True if it is loaded. Warn about a build that does not load."""
    spec = importlib.util.find_spec("fastvae._native")
    if spec is None or spec.origin is None:
        return False
    try:
        torch.ops.load_library(spec.origin)
    except OSError as error:
        warnings.warn(
            f"fastvae's C++ extension does not load ({error}); the CPU runs the eager reference. "
            "Build it for this torch with `make setup`.",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True


# Searched once, at import: torch.compile cannot trace the search.
_NATIVE = _load_extension()
_TRITON = importlib.util.find_spec("triton") is not None


def has_native() -> bool:
    """Return True if the C++ operators are built and loaded."""
    return _NATIVE


def has_triton() -> bool:
    """Return True if Triton is installed. It is imported at the first launch."""
    return _TRITON


CAPABILITIES = ("avx512", "avx2", "default")


def capability() -> str:
    """Return the instruction set that the C++ extension uses on this machine: avx512, avx2 or default.

    FASTVAE_CPU_CAPABILITY may ask for one of them. If the machine lacks it, the answer says so.
    """
    name: bytes = _ask("fastvae_cpu_capability", ctypes.c_char_p)
    return name.decode()


@functools.cache
def multiplies_bf16() -> bool:
    """Return True if the C++ extension is built and the machine has AVX-512 BF16, for its bf16 matrix products.

    >>> multiplies_bf16() <= has_native()
    True
    """
    try:
        return has_native() and bool(_ask("fastvae_multiplies_bf16", ctypes.c_bool))
    except AttributeError:  # the extension was built before it had this function
        return False


@functools.cache
def is_amd() -> bool:
    """Return True if the C++ extension is built and the processor is one of AMD's."""
    try:
        return has_native() and bool(_ask("fastvae_is_amd", ctypes.c_bool))
    except AttributeError:  # the extension was built before it had this function
        return False


def _ask(name: str, answer: Any) -> Any:
    """Call a function of the C++ extension that takes no arguments."""
    spec = importlib.util.find_spec("fastvae._native")
    assert spec is not None
    function = getattr(ctypes.CDLL(spec.origin), name)
    function.restype = answer
    return function()


def _launch(name: str, *args: Any) -> Any:
    """Launch an operator's kernels. Triton compiles part of each launch as C: explain the error without a compiler."""
    try:
        return _launcher(name)(*args)
    except (RuntimeError, FileNotFoundError, subprocess.CalledProcessError) as error:
        if isinstance(error, RuntimeError) and "C compiler" not in str(error):
            raise
        line = str(error).splitlines()[0]
        raise RuntimeError(
            f"Triton cannot build what launches {name} ({line}): install a C compiler and Python's headers (Debian and "
            "Ubuntu: apt-get install gcc python3-dev), or use backend='reference' (--backend reference)"
        ) from error


@functools.cache
def _launchers() -> SimpleNamespace:
    launchers = SimpleNamespace(**{name: _launcher(name) for name in _modules})
    for name, implementation in _compositions.items():
        setattr(launchers, name, functools.partial(implementation, launchers))
    return launchers


def transformed() -> bool:
    """Return True inside a transform of torch.func."""
    return torch._C._are_functorch_transforms_active()


def vmapped() -> bool:
    """Return True inside torch.func.vmap, where one call stands for many examples."""
    if not transformed():
        return False
    vmap = torch._C._functorch.TransformType.Vmap
    return any(interpreter.key() == vmap for interpreter in torch._C._functorch.get_interpreter_stack() or ())


def resolve(backend: str, tensor: Tensor) -> Any:
    """Return an object with a backend's operators as attributes, or None for the eager reference.

    Raises ValueError for an unknown backend, or for one that does not support the tensor's device; the message names
    one that does. The fused operators have no rules for torch.func's transforms: inside one, "auto" is the reference.
    """
    if backend == "auto":
        served = (tensor.is_cpu and has_native()) or (tensor.is_cuda and has_triton())
        return torch.ops.fastvae if served and not transformed() else None
    if backend in ("native", "triton") and transformed():
        raise ValueError(f"backend={backend!r} has no rules for torch.func's transforms: use 'auto' or 'reference'")
    if backend == "reference":
        return None
    device = tensor.device.type
    if backend == "native":
        if device != "cpu":
            raise ValueError(f"backend='native' needs CPU tensors, but they are on {tensor.device}: use 'auto'")
        if not has_native():
            raise ValueError("backend='native' needs the C++ extension, which is not built: run `make setup`")
        return torch.ops.fastvae
    if backend == "triton":
        if not has_triton():
            raise ValueError("backend='triton' needs Triton, which is not installed: `pip install triton`")
        if device == "cuda":
            return torch.ops.fastvae
        if os.environ.get("TRITON_INTERPRET") != "1":
            raise ValueError(
                f"backend='triton' needs a CUDA device, but the tensors are on {tensor.device}: use 'auto' "
                "(or start Python with TRITON_INTERPRET=1 to run the kernels in Triton's interpreter)"
            )
        return _launchers()
    raise ValueError(f"backend must be 'auto', 'triton', 'native' or 'reference', not {backend!r}")
