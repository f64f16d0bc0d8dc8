"""Race conditions: the same calls, repeated on two streams at once, must give the same bits."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from .section import Section, test_module

SHAPE, DRY_SHAPE = (512, 1024), (3, 40)  # hundreds of programs, whose partial sums the last one adds
REPEATS, DRY_REPEATS = 40, 2
ENOUGH_S = 6.0  # no new case begins later than this before the limit
# Cycles (some 30 ms) that both streams wait while Python launches: otherwise no two calls would overlap.
HEAD_START = 50_000_000
Tensors = tuple[Tensor, ...]


def run(section: Section) -> str:
    support = test_module("ops.support")
    cases = test_module("ops.cases")
    shape, repeats = (DRY_SHAPE, DRY_REPEATS) if section.dry else (SHAPE, REPEATS)
    backend = "native" if section.dry else "triton"
    calls = differing = 0
    for case in cases.CASES:
        if section.seconds_left() < ENOUGH_S:
            break
        inputs = case.inputs(shape, torch.float32, str(section.device))
        tensors = support.leaves(inputs.tensors)
        for reduction in [reduction for reduction in case.reductions if reduction != "batchmean"]:
            options = {"backend": backend, **case.options(reduction)}
            # Made once: noise from the host would be copied in each call and separate the calls.
            incoming = support.cotangents(case.fused(*tensors, *inputs.constants, **options))
            call = partial(both_ways, partial(case.fused, **options), tensors, inputs.constants, incoming)
            count = other_bits(section.device, repeats, call)
            calls += repeats
            if count:
                differing += count
                section.fail(f"{case.name} {reduction}: {count} of {repeats} calls have other bits than the first")
        section.keep(calls=calls, differing=differing)
    return f"{calls - differing} of {calls} calls on two streams have the bits of the first"


def both_ways(operator: Callable[..., Tensors], tensors: Tensors, constants: Tensors, incoming: Tensors) -> Tensors:
    """Return the outputs of an operator and the gradients of its tensors."""
    outputs = operator(*tensors, *constants)
    return *(output.detach() for output in outputs), *torch.autograd.grad(outputs, tensors, incoming)


def other_bits(device: torch.device, repeats: int, call: Callable[[], Tensors]) -> int:
    """Return the number of repeated calls that differ in any bit from a first call that ran alone."""
    first = call()
    if device.type != "cuda":
        results = [call() for _ in range(repeats)]
    else:
        streams = [torch.cuda.Stream() for _ in range(2)]
        for stream in streams:
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                torch.cuda._sleep(HEAD_START)
        results = []
        for at in range(repeats):
            with torch.cuda.stream(streams[at % 2]):
                results.append(call())
        torch.cuda.synchronize()
    return sum(not all(map(_same, result, first)) for result in results)


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.nan_to_num(7.0), other.nan_to_num(7.0))
