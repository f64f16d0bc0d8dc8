"""Timing of an operation, forward and backward: fastvae against eager and torch.compile, with the bytes moved.

A CPU is timed by the wall clock; a GPU by its own clock, over replays of a CUDA graph, with the wall time beside it.
"""

import functools
import statistics
import time as clock
from collections.abc import Callable

import torch
from graph_timing import HERE, REPLAYS, WARM_UP, Calls, Replayed, device_seconds, wait, wall_seconds
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from fastvae import Noise
from fastvae.bench.contenders import graphs

# (rows, event shape): bound by launches and Python; by memory or arithmetic.
PIXEL_SHAPES = [(100, (784,)), (256, (3, 64, 64))]
LATENT_SHAPES = [(100, (20,)), (8192, (256,))]
# They move over 64 MB, more than the caches of most machines hold; on a GPU, 1 to 4 GB.
LARGE_PIXEL_SHAPES = {"cpu": (1024, (3, 64, 64)), "cuda": (16384, (3, 64, 64))}
LARGE_LATENT_SHAPES = {"cpu": (32768, (256,)), "cuda": (524288, (256,))}
LARGE_PIXEL_SHAPE = LARGE_PIXEL_SHAPES[HERE.type]
LARGE_LATENT_SHAPE = LARGE_LATENT_SHAPES[HERE.type]
KINDS = {torch.float32: "fp32", torch.bfloat16: "bf16"}


def compiled(operation: Callable[..., Tensor]) -> dict[str, Callable[[], Callable[..., Tensor]]]:
    """Return torch.compile as contenders: for the given shape and, on a GPU, also with its most expensive search.

    Each starts from a clean state: next to graphs of other shapes it would be slower, by dynamic sizes or more guards.
    The search is the one without CUDA graphs, because these could not be captured into the graph that is timed.
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
    """Return the noise of the benchmarks, made once: to make it on a GPU copies from the host, and synchronizes."""
    return Noise(0, device=device)


def forward_backward(operation: Callable[..., Tensor], leaves: list[Tensor], *arguments: object) -> Calls:
    """Return calls of ``operation(*leaves, *arguments)``, a scalar, and of the gradients of its leaves."""

    def run(leaves: list[Tensor], *arguments: object) -> object:
        return torch.autograd.grad(operation(*leaves, *arguments), leaves)

    return Calls(run, leaves, *arguments)


def peak_bytes(call: Calls, device: torch.device) -> int:
    """Return the peak bytes allocated during a call beyond those before it: gradients and temporaries."""
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
    """Return the seconds in which torch copies a tensor, moving ``moved`` bytes: a lower bound for an operation."""
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
    """Time ``call``. ``moved`` is the number of bytes that an ideal pass reads and writes."""
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
    """Run the timed rounds: of ``call``, as ``rounds`` says, on a CPU; of replays over copies of its inputs on a GPU.

    For a GPU, ``extra_info`` also gets the wall time, the sets of inputs, and the reason why a call could not be
    captured and has only its wall time.
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

        def called() -> None:
            call()
            wait()

        benchmark.pedantic(called, rounds=REPLAYS, warmup_rounds=WARM_UP)
        return
    benchmark._timer = replayed.seconds  # the device's clock, which pedantic takes from its fixture
    benchmark.pedantic(replayed.replay, rounds=REPLAYS, warmup_rounds=WARM_UP)
