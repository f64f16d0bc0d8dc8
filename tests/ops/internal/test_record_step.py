"""The bookkeeping of a step in one launch is the reference's to the bit."""

import math

import pytest
import torch

from fastvae.ops.internal.record_step import record_step_

INF = math.inf
NAN = math.nan
# The sums and sizes of some steps in a row.
STEPS = {
    "finite": [([3.0, 2.0, 1.0], [1.0] * 100)] * 3,
    "a loss": [([3.0, 2.0, 1.0], [1.0]), ([NAN, NAN, 1.0], [1.0]), ([1.0, 1.0, 1.0], [1.0])],
    "a gradient": [([3.0, 2.0, 1.0], [1.0, INF]), ([INF, INF, 1.0], [NAN]), ([0.1, 0.1, 0.0], [2.0])],
    "of both signs": [([INF, -INF, 0.0], [1.0])],
    "no sizes": [([3.0, 2.0, 1.0], []), ([NAN, 2.0, 1.0], [])],
    "large": [([3e38, 3e38, 3e38], [3e38] * 70)],  # finite, though their sum is beyond fp32
}


def book(steps, place, backend, *, dtype, lasting):
    device = place.device
    found, record = torch.zeros(1, device=device), torch.zeros(5, dtype=torch.float64, device=device)
    total = torch.zeros(4, dtype=torch.float64, device=device)
    state = torch.tensor([9, 2**25 + 1], device=device)
    history = []
    for sums, sizes in steps:
        given = torch.tensor(sums, dtype=dtype, device=device), torch.tensor(sizes, device=device)
        record_step_(found, record, total, state, *given, rows=7, images=5, lasting=lasting, backend=backend)
        history += [tensor.clone() for tensor in (found, record, total, state)]
    return history


@pytest.mark.filterwarnings("ignore:invalid value encountered in reduce")  # numpy's, in Triton's interpreter
@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_it_is_the_reference_to_the_bit(place, steps, dtype, lasting):
    if place.backend == "native":
        pytest.skip("the reference serves CPUs")
    ours = book(steps, place, place.backend, dtype=dtype, lasting=lasting)
    for one, other in zip(ours, book(steps, place, "reference", dtype=dtype, lasting=lasting), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


def test_what_the_reference_says(place):
    steps = STEPS["a gradient"]
    *_, found, record, total, state = book(steps, place, "reference", dtype=torch.float64, lasting=False)
    assert found.item() == 0
    assert record.tolist() == [2, 2**25 + 1, 3 / 7, 2 / 7, 1 / 7]
    assert total.tolist() == [0.1, 0.1, 0.0, 10]
    assert state.tolist() == [9, 2**25 + 4]
    *_, found, record, total, _ = book(steps, place, "reference", dtype=torch.float64, lasting=True)
    assert (found.item(), record[0].item(), total.tolist()) == (1, 3, [0, 0, 0, 15])


def test_finite_numbers_beyond_fp32_are_finite(place):
    *_, found, _, _, _ = book(STEPS["large"], place, "reference", dtype=torch.float32, lasting=False)
    assert found.item() == 0
