"""Timing of one op: forward and backward, fastvae against eager and torch.compile, bytes counted."""

import functools
import statistics
import time as clock
from collections.abc import Callable

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

# (rows, event shape): bound by launches and Python, by memory or arithmetic.
PIXEL_SHAPES = [(100, (784,)), (256, (3, 64, 64))]
LATENT_SHAPES = [(100, (20,)), (8192, (256,))]
# Over 64 MB moved, and more than the caches of most machines hold.
LARGE_PIXEL_SHAPE = (1024, (3, 64, 64))
LARGE_LATENT_SHAPE = (32768, (256,))
KINDS = {torch.float32: "fp32", torch.bfloat16: "bf16"}


def compiled(operation: Callable[..., Tensor]) -> dict[str, Callable[[], Callable[..., Tensor]]]:
    """torch.compile as contenders: for the shape at hand, and on a GPU with its costliest search too.

    Each starts from nothing: beside the graphs of other shapes it would be slower, by a dynamic size or more guards.
    """

    def make(mode: str | None = None) -> Callable[..., Tensor]:
        torch._dynamo.reset()
        return torch.compile(operation, dynamic=False, mode=mode)

    contenders: dict[str, Callable[[], Callable[..., Tensor]]] = {"torch.compile": make}
    if torch.cuda.is_available():
        contenders["torch.compile, max-autotune"] = functools.partial(make, "max-autotune")
    return contenders


def forward_backward(operation: Callable[..., Tensor], leaves: list[Tensor], *arguments: object) -> Callable[[], None]:
    """A call that runs ``operation(*leaves, *arguments)`` to a scalar and back to the gradients of the leaves."""
    cuda = leaves[0].is_cuda

    def call() -> None:
        torch.autograd.grad(operation(*leaves, *arguments), leaves)
        if cuda:
            torch.cuda.synchronize()

    return call


def peak_bytes(call: Callable[[], None], device: torch.device) -> int:
    """The most memory that is allocated at once during a call, beyond what was before it: gradients, temporaries."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        call()
    held = peak = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


@functools.cache
def copy_seconds(moved: int, device: torch.device) -> float:
    """How long torch takes to copy a tensor, if reading and writing it move ``moved`` bytes: the floor of an op."""
    source = torch.randint(0, 256, (max(moved // 2, 1),), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = []
    for _ in range(60):
        start = clock.perf_counter()
        target.copy_(source)
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(clock.perf_counter() - start)
    return statistics.median(times[15:])


def time(benchmark, name: str, call: Callable[[], None], *, device: torch.device, moved: int) -> None:
    """Time ``call`` by the wall clock; ``moved`` are the bytes that an ideal pass reads and writes."""
    call()  # compiles
    benchmark.extra_info.update(
        name=name,
        bytes=moved,
        baseline=name != "fastvae",
        copy_s=copy_seconds(moved, device),
        peak_bytes=peak_bytes(call, device),
    )
    large = moved > 6e7
    benchmark.pedantic(
        call, rounds=25 if large else 60, warmup_rounds=5 if large else 15, iterations=1 if moved > 1e6 else 20
    )
