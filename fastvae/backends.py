"""The backends that this installation and this machine have: the C++ extension, Triton, and the CPU's instructions."""

from fastvae.ops._library import CAPABILITIES, capability, has_native, has_triton, is_amd, multiplies_bf16

__all__ = ["CAPABILITIES", "capability", "has_native", "has_triton", "is_amd", "multiplies_bf16"]
