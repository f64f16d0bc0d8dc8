"""Compile the Triton kernels of every operator ahead of time, with no GPU, and print their resources as JSON.

    python tests/kernels/aot.py "sm_90 bf16 dense" ...   these combinations, on standard output
    python tests/kernels/aot.py --record                 the committed table, resources.json

Arguments are those of a launch on real tensors, and Triton's own binder specializes them, as at a launch: pointers are
divisible by 16, and sizes are not known. VARIANT: "dense";
"packed" (mu and logvar are halves of one head); "ragged" (nothing aligned); "int64" (packed, over 2**30 elements).
"""

import importlib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl

sys.path.insert(0, str(Path(__file__).parent))
from pretended import compiled as compiled_by_jit

# An operator's kernel, and the optional pointers that are absent: noise comes from the key, weights from the device.
_NO_KL = ("kl", "partials", "semaphores")
_NO_SUM = ("loss_sum", "partials", "semaphores")
_ONE = ("second", "second_gradient", "state")  # one prediction a pixel, the target as it is
KERNELS = {
    "bernoulli_nll": ("_pixel._forward", _ONE),
    "bernoulli_nll_backward": ("_pixel._backward", _ONE),
    "bernoulli_nll binarized": ("_pixel._forward", ("second", "second_gradient")),
    "binarize": ("binarize._binarize", ()),
    "continuous_bernoulli_nll": ("_pixel._forward", _ONE),
    "continuous_bernoulli_nll_backward": ("_pixel._backward", _ONE),
    "discretized_logistic_nll": ("_pixel._forward", ("state",)),
    "discretized_logistic_nll_backward": ("_pixel._backward", ("state",)),
    "gaussian_logvar_nll": ("_pixel._forward", ("state",)),
    "gaussian_logvar_nll_backward": ("_pixel._backward", ("state",)),
    "gaussian_nll": ("_pixel._forward", _ONE),
    "gaussian_nll_backward": ("_pixel._backward", _ONE),
    "laplace_nll": ("_pixel._forward", _ONE),
    "laplace_nll_backward": ("_pixel._backward", _ONE),
    "categorical_nll": ("categorical_nll._nll", ("grad_output",)),
    "categorical_nll_backward": ("categorical_nll._nll", _NO_SUM),
    "discretized_logistic_mixture_nll": ("discretized_logistic_mixture_nll._nll", ("grad_output",)),
    "discretized_logistic_mixture_nll_backward": ("discretized_logistic_mixture_nll._nll", _NO_SUM),
    "free_bits_kl": ("free_bits_kl._columns", ("grad_output", "sums", "weight_tensor", "grad_mu", "grad_logvar")),
    "free_bits_kl_backward": ("free_bits_kl._columns", ("partials",)),
    "free_bits_kl second stage": ("free_bits_kl._groups", ()),
    "gaussian_kl": ("_latent._forward", ("z", "eps", "state")),
    "gaussian_kl_backward": ("_latent._backward", ("grad_z", "eps", "state")),
    "importance_weighted_nll": ("importance_weighted_nll._bound", ("bounds", "grad_output")),
    "importance_weighted_nll_backward": (
        "importance_weighted_nll._bound",
        ("bounds", "loss", "partials", "semaphores"),
    ),
    "gaussian_prior_kl": ("gaussian_prior_kl._pass", ("grad_output",)),
    "gaussian_prior_kl_backward": ("gaussian_prior_kl._pass", _NO_SUM),
    "reparameterize": (
        "_latent._forward",
        ("kl", "partials", "semaphores", "grad_mu", "grad_logvar", "eps", "weight_tensor"),
    ),
    "reparameterize_backward": ("_latent._backward", ("grad_kl", "mu", "grad_mu", "eps", "weight_tensor")),
    "reparameterize_kl": ("_latent._forward", ("grad_mu", "grad_logvar", "eps")),
    "reparameterize_kl_backward": ("_latent._backward", ("eps",)),
    "reparameterize_log_ratio": ("reparameterize_log_ratio._forward", ("eps",)),
    "reparameterize_log_ratio_backward": ("reparameterize_log_ratio._backward", ("eps",)),
    "gaussian_kl clamped": ("_latent._forward", ("z", "eps", "state")),
    "reparameterize_kl_backward clamped": ("_latent._backward", ("eps",)),
    "record_step_": ("record_step._record", ()),
    "scale_gradient_": ("scale_gradient._scale", ()),
    "second stage": ("reparameterize_log_ratio._add", ()),
}
# The most vectors a program where a thread has one, and the kernels with programs of 4 warps.
_TILES = {
    "discretized_logistic_nll": 128,
    "discretized_logistic_nll_backward": 128,
    "gaussian_prior_kl": 256,
    "gaussian_prior_kl_backward": 256,
    "reparameterize_kl_backward clamped": 256,
}
_FOUR_WARPS = ("second stage", "categorical_nll", "discretized_logistic_nll")
_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}
TABLE = Path(__file__).with_name("resources.json")
RECORDED = [f"sm_{arch} {dtype} dense" for arch in (80, 90, 100) for dtype in ("fp32", "bf16")]
_STRIDES = {"stride_mu", "stride_logvar", "stride_prior_mu", "stride_prior_logvar"}
_INTEGERS = {"length", "chunks", "event", "first", "stream", *_STRIDES}
_INTEGERS |= {"batch", "samples", "stride_output", "inner", "planes", "mixtures", "count", "rows", "images"}
_FLOATS = {"allowance", "weight", "constant0", "constant1", "log_samples", "low", "high"}


def member(module: str, name: str) -> Any:
    return getattr(importlib.import_module(f"fastvae.kernels.{module}"), name)


def compiled(operator: str, arch: int, dtype: str, variant: str) -> Any:
    kernel, absent = KERNELS[operator]
    function = member(*kernel.split("."))
    own = _TYPES[dtype]
    wide = torch.float64 if dtype == "fp64" else torch.float32
    types = {"target": torch.uint8, "drawn": torch.uint8, "state": torch.int64, "weight_tensor": torch.float32}
    types |= {"semaphores": torch.int32, "found": torch.float32, "record": torch.float64, "total": torch.float64}
    types |= dict.fromkeys(
        ("parts", "partials", "loss", "loss_sum", "kl", "bounds", "sums", "grad_output", "grad_kl", "grad_ratio"), wide
    )
    meta = {
        "TILE": min(_TILES.get(operator, 512), 256 if dtype == "fp64" else 512),
        "VECTOR": 8 if dtype in ("bf16", "fp16") else 4,
        "ALIGNED": variant != "ragged",
        "DENSE": variant == "dense",
        "INDEX": tl.int64 if variant == "int64" else tl.int32,
        "COMPUTE": tl.float64 if dtype == "fp64" else tl.float32,
        "CLASSES": 16,
        "COMPONENTS": 16,
        "COLOUR": True,
        "PIXELS": 16 if dtype == "fp32" and "mixture" in operator else 8,
        "CLAMP": operator.endswith(" clamped"),
        "BLOCK": 4096,
        "ROWS": 4,
        "SPAN": 32,
        "COLUMNS": 256,
        "WHOLE": True,
        "CONSTANT": True,
        "WEIGHTED": True,
        "LASTING": True,
    }
    if "TERMS" in function.arg_names:
        meta["TERMS"] = member(operator.split(maxsplit=1)[0].removesuffix("_backward"), "_terms")
    arguments: list[Any] = []
    for name in function.arg_names:
        if name in absent:
            arguments.append(None)
        elif name in meta:
            arguments.append(meta[name])
        elif name in _INTEGERS or name in _FLOATS:
            arguments.append(48 if name in _INTEGERS else 0.1)
        else:
            arguments.append(torch.empty(16, dtype=types.get(name, own)))
    few = "ROWS" in function.arg_names or any(words in operator for words in _FOUR_WARPS)
    return compiled_by_jit(function, arch, *arguments, num_warps=4 if few else 8, num_stages=1)


def resources(binary: Any) -> dict[str, Any]:
    """Registers, bytes of stack, local memory (spills) and shared memory, counts of the memory instructions, and types
    of the host's numbers.
    """
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        command = [str(tool), "--dump-resource-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    numbers = {key: int(re.search(rf"\b{key}:(\d+)", usage)[1]) for key in ("REG", "STACK", "LOCAL")}
    accesses: dict[str, int] = {}
    for access in re.findall(r"\b(?:ld|st)\.(?:global|shared|local)[.:\w]*", binary.asm["ptx"]):
        accesses[access] = accesses.get(access, 0) + 1
    types = {name: kind for name, kind in binary.src.signature.items() if kind != "constexpr" and "*" not in kind}
    return {**numbers, "shared": binary.metadata.shared, "accesses": dict(sorted(accesses.items())), "types": types}


def table(combination: str) -> dict[str, Any]:
    """The resources of every kernel in one combination, such as "sm_90 bf16 dense"."""
    arch, dtype, variant = combination.split()
    return {operator: resources(compiled(operator, int(arch[3:]), dtype, variant)) for operator in KERNELS}


if __name__ == "__main__":
    if sys.argv[1] == "--record":
        rows = {combination: table(combination) for combination in RECORDED}
        lines = [f'"triton": "{triton.__version__}"']
        for key, kernels in rows.items():
            lines.append(f'"{key}": {{\n ' + ",\n ".join(f'"{k}": {json.dumps(v)}' for k, v in kernels.items()) + "}")
        TABLE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    else:
        print(json.dumps({combination: table(combination) for combination in sys.argv[1:]}))
