"""The accuracy of every compiled kernel against eager PyTorch in fp64, by the rule of the tests."""

import itertools

import torch

from .section import Section, test_module

# fp32 and bf16 come first, because training uses them and a section may run out of time.
DTYPES = (torch.float32, torch.bfloat16, torch.float64, torch.float16)
SHAPES = ((7, 784), (64, 21), (33, 3, 8, 8))
WEIGHT, SCALAR = 0.75, -2.5  # not 1, so that a lost factor shows
ENOUGH_S = 8.0  # no new case begins later than this before the limit


def run(section: Section) -> str:
    support = test_module("ops.support")
    cases = test_module("ops.cases")
    shapes, dtypes = (((2, 21),), DTYPES[:1]) if section.dry else (SHAPES, DTYPES)
    wanted = list(itertools.product(dtypes, shapes, cases.CASES))
    if section.dry:
        wanted = wanted[::3]  # the interpreter takes a second per case
    calls = bad = done = 0
    for dtype, shape, case in wanted:
        if section.seconds_left() < ENOUGH_S:
            break
        done += 1
        for reduction in case.reductions[:1] if section.dry else case.reductions:
            calls += 1
            try:
                inputs = case.inputs(shape, dtype, str(section.device))
                options = case.options(reduction, WEIGHT)
                support.assert_accurate(case, inputs, "triton", scalar=SCALAR, **options)
            except Exception as error:  # go on with the other kernels
                bad += 1
                kind = str(dtype).removeprefix("torch.")
                section.fail(f"{case.name} {kind} {shape} {reduction}: {str(error).partition(chr(10))[0]}")
        section.keep(calls=calls, wrong=bad, cases=done, of_cases=len(wanted))
    left = f"; {len(wanted) - done} cases were not reached" if done < len(wanted) else ""
    return f"{calls - bad} of {calls} calls are within eager's own error{left}"
