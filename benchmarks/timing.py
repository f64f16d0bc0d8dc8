"""Timing of one op: forward and backward, fastvae against eager and torch.compile, bytes counted.

On a CPU by the wall clock. On a GPU by the device's, over replays of a CUDA graph, with the wall time beside it.
"""

import functools
import statistics
import time as clock
from collections.abc import Callable

import torch
from replays import HERE, REPLAYS, WARM_UP, Calls, Replayed, device_seconds, wait, wall_seconds
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from fastvae import Noise
from fastvae.bench.contenders import graphs

# (rows, event shape): bound by launches and Python, by memory or arithmetic.
PIXEL_SHAPES = [(100, (784,)), (256, (3, 64, 64))]
LATENT_SHAPES = [(100, (20,)), (8192, (256,))]
# Over 64 MB moved, and more than the caches of most machines hold; on a GPU 1 to 4 GB.
LARGE_PIXEL_SHAPES = {"cpu": (1024, (3, 64, 64)), "cuda": (16384, (3, 64, 64))}
LARGE_LATENT_SHAPES = {"cpu": (32768, (256,)), "cuda": (524288, (256,))}
LARGE_PIXEL_SHAPE, LARGE_LATENT_SHAPE = LARGE_PIXEL_SHAPES[HERE.type], LARGE_LATENT_SHAPES[HERE.type]
KINDS = {torch.float32: "fp32", torch.bfloat16: "bf16"}


def compiled(operation: Callable[..., Tensor]) -> dict[str, Callable[[], Callable[..., Tensor]]]:
    """torch.compile as contenders: for the shape at hand, and on a GPU with its costliest search too.

    Each starts from nothing: beside the graphs of other shapes it would be slower, by a dynamic size or more guards.
    The search is the one without CUDA graphs of its own, which could not be captured into the one that is timed.
    """

    def make(mode: str | None = None) -> Callable[..., Tensor]:
        torch._dynamo.reset()
        return torch.compile(operation, dynamic=False, mode=mode)

    contenders: dict[str, Callable[[], Callable[..., Tensor]]] = {"torch.compile": make}
    if torch.cuda.is_available():
        contenders["torch.compile, max-autotune"] = functools.partial(make, "max-autotune-no-cudagraphs")
    return contenders


@functools.cache
def noise(device: torch.device) -> Noise:
    """The key of the benchmarks' draws, made once: to make one on a GPU copies from the host, and waits."""
    return Noise(0, device=device)


def forward_backward(operation: Callable[..., Tensor], leaves: list[Tensor], *arguments: object) -> Calls:
    """Calls that run ``operation(*leaves, *arguments)`` to a scalar and back to the gradients of the leaves."""

    def run(leaves: list[Tensor], *arguments: object) -> object:
        return torch.autograd.grad(operation(*leaves, *arguments), leaves)

    return Calls(run, leaves, *arguments)


def peak_bytes(call: Calls, device: torch.device) -> int:
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
    if graphs.captures(device):
        copies = Calls(torch.clone, source)
        return device_seconds(copies, copies.rotate())
    target = torch.empty_like(source)
    times = []
    for _ in range(60):
        start = clock.perf_counter()
        target.copy_(source)
        times.append(clock.perf_counter() - start)
    return statistics.median(times[15:])


def time(benchmark, name: str, call: Calls, *, device: torch.device, moved: int) -> None:
    """Time ``call``; ``moved`` are the bytes that an ideal pass reads and writes."""
    call()  # compiles
    benchmark.extra_info.update(
        name=name,
        bytes=moved,
        baseline=name != "fastvae",
        copy_s=copy_seconds(moved, device),
        peak_bytes=peak_bytes(call, device),
    )
    large = moved > 6e7
    measure(
        benchmark,
        call,
        device=device,
        rounds=25 if large else 60,
        warmup_rounds=5 if large else 15,
        iterations=1 if moved > 1e6 else 20,
    )


def measure(benchmark, call: Calls, *, device: torch.device, **rounds: int) -> None:
    """Run the rounds: on a CPU of ``call`` as ``rounds`` says, on a GPU of replays over copies of its inputs.

    Beside a GPU's figures, ``extra_info`` has the wall time, what was in rotation, and why a call that cannot be
    captured has only its wall time.
    """
    if not graphs.captures(device):
        benchmark.pedantic(call, **rounds)
        return
    sets = call.rotate()
    info = benchmark.extra_info
    info.update(rotated=f"{sets} x {call.bytes / 1e6:.3g} MB of inputs", wall_s=wall_seconds(call, sets))
    try:
        replayed = Replayed(call, sets)
    except RuntimeError as error:
        info["not_captured"] = str(error.__context__ or error).partition("\n")[0]
        benchmark.pedantic(lambda: (call(), wait()), rounds=REPLAYS, warmup_rounds=WARM_UP)
        return
    benchmark._timer = replayed.seconds  # the device's clock, which pedantic takes from its fixture
    benchmark.pedantic(replayed.replay, rounds=REPLAYS, warmup_rounds=WARM_UP)
