"""Matrix products by whichever library at hand is fastest, chosen by measurement."""

import functools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fastvae import backends
from fastvae.ops.internal.mm import mm_of_lists

_ROUNDS = 15  # timed calls of each candidate, in turns
_PEAK_ROUNDS = 5
_CALLS_ON_GPU = 20  # queued at once, so that the host's launches are not what is timed
_PEAK_SIDE = {"cpu": 2048, "cuda": 8192}  # of the square matrices whose product shows the peak rate

Call = Callable[[], object]


@dataclass(frozen=True)
class Product:
    """A product of a step, or the two of a layer's backward pass, and who computes it fastest.

    Attributes:
        shape: rows x depth x columns, or the shapes of a convolution.
        flops: floating-point operations; a multiplication and an addition are two.
        seconds: the shortest time that was measured.
    """

    shape: str
    library: str
    flops: int
    seconds: float


@dataclass(frozen=True)
class Products:
    """All products of a step, and the rate of one that is large enough for the device's full speed, in FLOP/s."""

    each: tuple[Product, ...]
    large: float

    @property
    def peak(self) -> float:
        """The highest rate that was measured: the large product's, or that of one in the caches."""
        return max([self.large, *(product.flops / product.seconds for product in self.each)])

    @property
    def flops(self) -> int:
        """Operations of one step."""
        return sum(product.flops for product in self.each)

    @property
    def libraries(self) -> str:
        """The number of products by each library, such as "5 oneDNN, 2 torch.mm"."""
        names = [product.library for product in self.each]
        return ", ".join(f"{names.count(name)} {name}" for name in sorted(set(names), key=names.count, reverse=True))


def fastest(candidates: Mapping[str, Call], device: torch.device, rounds: int = _ROUNDS) -> tuple[str, float]:
    """Return the name of the candidate with the shortest time, and that time in seconds.

    The shortest of several times is compared, since other work on the machine only adds to them.
    """
    times = dict.fromkeys(candidates, math.inf)
    for call in candidates.values():
        call()  # libraries prepare a shape at its first call
    for _ in range(rounds):
        for name, call in candidates.items():
            times[name] = min(times[name], _seconds(call, device))
    name = min(times, key=times.__getitem__)
    return name, times[name]


def matmuls(left: Tensor, right: Tensor, out: Tensor, bias: Tensor | None = None) -> dict[str, Call]:
    """Return calls that compute ``left @ right + bias``, (M, K) by (K, N), by library. torch's writes to ``out``."""
    calls: dict[str, Call] = {}
    if bias is None:
        calls["torch.mm"] = lambda: torch.mm(left, right, out=out)
    else:
        calls["torch.mm"] = lambda: torch.addmm(bias, left, right, out=out)
    if left.device.type != "cpu":
        return calls
    if torch.backends.mkldnn.is_available():  # torch.mm of fp32 is MKL's, where torch has it
        multiply = torch.ops.mkldnn._linear_pointwise.default
        weight = right.t()
        calls["oneDNN"] = lambda: multiply(left, weight, bias, "none", [], "")
    if own_matmuls(left.dtype):
        biases = [] if bias is None else [bias]
        calls["fastvae"] = lambda: mm_of_lists([left], [right], biases)
    return calls


def own_matmuls(dtype: torch.dtype) -> bool:
    """Return True if fastvae has a product of its own for this type on this CPU."""
    if dtype in (torch.float32, torch.float64):
        return backends.has_native()
    return dtype == torch.bfloat16 and backends.multiplies_bf16()


@functools.cache
def peak(dtype: torch.dtype, device: torch.device) -> float:
    """Measure the rate of a large product by the fastest library, in FLOP/s, once in a process."""
    side = _PEAK_SIDE[device.type]
    left, right, out = (torch.randn(side, side, device=device).to(dtype) for _ in range(3))
    return 2 * side**3 / fastest(matmuls(left, right, out), device, _PEAK_ROUNDS)[1]


def _seconds(call: Call, device: torch.device) -> float:
    count = 1 if device.type == "cpu" else _CALLS_ON_GPU
    _wait(device)
    started = time.perf_counter()
    for _ in range(count):
        call()
    _wait(device)
    return (time.perf_counter() - started) / count


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
