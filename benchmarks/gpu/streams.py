"""Races: the same calls again and again, on two streams at once, give the same bits."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from .section import Section, of_tests

SHAPE, DRY_SHAPE = (512, 1024), (3, 40)  # hundreds of programs, whose sums the last one adds up
REPEATS, DRY_REPEATS = 40, 2
ENOUGH_S = 6.0


def run(section: Section) -> str:
    support, cases = of_tests("ops.support"), of_tests("ops.cases")
    shape, repeats = (DRY_SHAPE, DRY_REPEATS) if section.dry else (SHAPE, REPEATS)
    backend = "native" if section.dry else "triton"
    tried = differing = 0
    for case in cases.CASES:
        if section.seconds_left() < ENOUGH_S:
            break
        inputs = case.inputs(shape, torch.float32, str(section.device))
        for reduction in [reduction for reduction in case.reductions if reduction != "batchmean"]:
            options = {"backend": backend, **case.options(reduction)}
            count = other_bits(section.device, repeats, lambda: support.value_and_grad(case.fused, inputs, **options))
            tried += repeats
            if count:
                differing += count
                section.fail(f"{case.name} {reduction}: {count} of {repeats} calls have other bits than the first")
        section.keep(calls=tried, differing=differing)
    return f"{tried - differing} of {tried} calls on two streams have the bits of the first"


def other_bits(device: torch.device, repeats: int, call: Any) -> int:
    """How many of the repeated calls differ in any bit from a first one, alone."""
    first = [tensor.nan_to_num(7.0) for tensors in call() for tensor in tensors]
    streams = [torch.cuda.Stream() for _ in range(2)] if device.type == "cuda" else [None, None]
    for stream in filter(None, streams):
        stream.wait_stream(torch.cuda.current_stream())
    results = []
    for at in range(repeats):
        with _on(streams[at % 2]):
            results.append([tensor.nan_to_num(7.0) for tensors in call() for tensor in tensors])
    if device.type == "cuda":
        torch.cuda.synchronize()
    return sum(
        not all(torch.equal(mine, other) for mine, other in zip(result, first, strict=True)) for result in results
    )


def _on(stream: Any) -> AbstractContextManager[Any]:
    return nullcontext() if stream is None else torch.cuda.stream(stream)
