"""One schema per operator, in Python, so that the package works unbuilt; implementations join by device key.

CPU: the C++ extension registers itself when it is loaded here. CUDA: the Triton launcher of the same name and
signature in ``fastvae.kernels``, imported at its first call. Where neither fits, ``backend="auto"`` takes the eager
reference.
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
from typing import Any, Literal

import torch
from torch import Tensor

Backend = Literal["auto", "triton", "native", "reference"]

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


def define_of_cpu(schema: str, fake: Callable[..., Any]) -> None:
    """Declare an operator that only the extension implements: elsewhere torch's own is as good."""
    _of_cpu.add(schema.partition("(")[0])
    _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    torch.library.register_fake(f"fastvae::{schema.partition('(')[0]}", fake, lib=_library)


def compose(schema: str, fake: Callable[..., Any], implementation: Callable[..., Any]) -> None:
    """Declare an operator made of others: ``implementation(operators, *arguments)`` calls them, in any backend.

    To torch.compile it is one node, whatever the implementation loops over.
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
    """Load the extension if it was built. A build that does not load is said, never hidden."""
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


# Found out once, at import: torch.compile may not trace the search.
_NATIVE = _load_extension()
_TRITON = importlib.util.find_spec("triton") is not None


def has_native() -> bool:
    """Whether the C++ operators are built and loaded."""
    return _NATIVE


def has_triton() -> bool:
    """Whether Triton is installed; it is imported at the first launch."""
    return _TRITON


CAPABILITIES = ("avx512", "avx2", "default")


def capability() -> str:
    """The instruction set that the built extension chose on this machine: avx512, avx2 or default.

    FASTVAE_CPU_CAPABILITY asks for one of them; where the machine lacks it, this says so.
    """
    name: bytes = _ask("fastvae_cpu_capability", ctypes.c_char_p)
    return name.decode()


@functools.cache
def multiplies_bf16() -> bool:
    """Whether the extension is built and its product of bf16 matrices runs on this machine, which takes AVX-512 BF16.

    >>> multiplies_bf16() <= has_native()
    True
    """
    try:
        return has_native() and bool(_ask("fastvae_multiplies_bf16", ctypes.c_bool))
    except AttributeError:  # an extension built before there was one
        return False


def _ask(name: str, answer: Any) -> Any:
    """What a function without arguments of the built extension says."""
    spec = importlib.util.find_spec("fastvae._native")
    assert spec is not None
    function = getattr(ctypes.CDLL(spec.origin), name)
    function.restype = answer
    return function()


def _launch(name: str, *args: Any) -> Any:
    """Launch an operator's kernels. Triton compiles a part of each launch as C: without a compiler, say what to do."""
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
    """Whether a transform of torch.func is active."""
    return torch._C._are_functorch_transforms_active()


def vmapped() -> bool:
    """Whether one of those transforms is vmap, under which a call stands for many examples."""
    if not transformed():
        return False
    vmap = torch._C._functorch.TransformType.Vmap
    return any(interpreter.key() == vmap for interpreter in torch._C._functorch.get_interpreter_stack() or ())


def resolve(backend: str, tensor: Tensor) -> Any:
    """The operators of a backend as attributes, or None for the eager reference.

    Raises ValueError for an unknown backend, or for one that cannot serve the tensor's device; the message says what
    can. The fused operators have no rules for torch.func: under a transform "auto" is the reference, which needs none.
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
