"""A driver for Triton without a GPU: the JIT binds arguments and compiles as on one, and launches nothing."""

from types import SimpleNamespace
from typing import Any

from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction


class _Driver:
    """A device for each architecture, known by its number: the JIT keeps what it compiles by device."""

    utils = SimpleNamespace(
        get_device_properties=lambda device: {"max_shared_mem": 232448, "multiprocessor_count": 132}
    )

    def __init__(self) -> None:
        self.arch = 90

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.arch, 32)

    def get_current_device(self) -> int:
        return self.arch

    def get_current_stream(self, device: int) -> int:
        return 0


_DRIVER = _Driver()


def compiled(function: JITFunction[Any], arch: int, *arguments: Any, **options: Any) -> Any:
    """Compile the kernel that the JIT would launch on sm_``arch`` for these arguments."""
    _DRIVER.arch = arch
    driver.set_active(_DRIVER)
    kernel = function.run(*arguments, grid=(1,), warmup=True, **options)
    return kernel.result() if hasattr(kernel, "result") else kernel
