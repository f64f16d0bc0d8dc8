"""The rate of the fastest product, on a clock that the products move."""

import pytest
import torch

from fastvae.train.measure.roofline import Mark, fastest_matmul

CPU = torch.device("cpu")


@pytest.fixture
def products(monkeypatch):
    """Have timed products of a side take the seconds in its list, one after another; the last one repeats."""
    now, seconds, multiply = [0.0], {}, torch.mm

    def timed(left, right, *, out):
        left_of_side = seconds[len(left)]
        now[0] += left_of_side.pop(0) if len(left_of_side) > 1 else left_of_side[0]
        return multiply(left, right, out=out)

    monkeypatch.setattr(torch, "mm", timed)
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    return seconds


def test_the_rate_is_that_of_the_best_turn(products):
    products |= {256: [0.0008], 512: [0.004, 0.003, 0.002, 0.005]}
    product = fastest_matmul(torch.float32, CPU)
    assert product.side == 512
    assert product.rate == pytest.approx(2 * 512**3 / 0.002)  # a multiplication with its addition is 2 FLOPs


def test_the_first_turn_may_be_the_best(products):
    products |= {256: [0.0015, 0.004]}
    product = fastest_matmul(torch.float32, CPU)
    assert product.side == 256
    assert product.rate == pytest.approx(2 * 256**3 / 0.0015)


def test_a_product_of_a_millisecond_is_large_enough(products):
    products |= {256: [0.0005], 512: [0.001, 0.0009]}
    assert fastest_matmul(torch.float32, CPU).side == 512


def test_a_mark_knows_the_seconds_since_another(products):
    products[3] = [0.25]
    first = Mark(CPU)
    torch.mm(torch.ones(3, 3), torch.ones(3, 3), out=torch.empty(3, 3))
    second = Mark(CPU)
    assert second.seconds_since(first) == 0.25
    assert first.seconds_since(first) == 0
