"""Products by library: all compute the same, and the one with the shortest time is taken."""

import time

import pytest
import torch

from fastvae.bench.contenders import products
from fastvae.ops import _library

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("strided", [False, True])
def test_every_library_computes_the_same_product(dtype, strided):
    left, right, bias = torch.randn(33, 24), torch.randn(24, 40), torch.randn(40)
    left, right, bias = left.to(dtype), right.to(dtype), bias.to(dtype)
    if strided:
        left, right = left.t().contiguous().t(), right.t().contiguous().t()
    out = torch.empty(33, 40, dtype=dtype)
    exact = left.double() @ right.double()
    tolerance = 1e-4 if dtype == torch.float32 else 0.1
    for given, expected in ((None, exact), (bias, exact + bias.double())):
        calls = products.matmuls(left, right, out, given)
        own = _library.multiplies_bf16() if dtype == torch.bfloat16 else _library.has_native()
        assert ("fastvae" in calls) == own
        assert ("oneDNN" in calls) == torch.backends.mkldnn.is_available()
        for name, call in calls.items():
            result = call()
            result = result[0] if isinstance(result, list) else result
            torch.testing.assert_close(result.double(), expected, rtol=0, atol=tolerance, msg=name)
        torch.testing.assert_close(out.double(), expected, rtol=0, atol=tolerance)


def test_the_shortest_time_decides_though_others_disturb(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    disturbed = iter([9.0, *[1.0] * 14, 0.5])

    def take(seconds):
        now[0] += seconds

    candidates = {"slow": lambda: take(2.0), "fast": lambda: take(next(disturbed))}
    assert products.fastest(candidates, CPU) == ("fast", 0.5)


def test_the_peak_is_measured_once(monkeypatch):
    monkeypatch.setitem(products._PEAK_SIDE, "cpu", 64)
    products.peak.cache_clear()
    first = products.peak(torch.float32, CPU)
    assert first > 0
    assert products.peak(torch.float32, CPU) == first
    products.peak.cache_clear()
