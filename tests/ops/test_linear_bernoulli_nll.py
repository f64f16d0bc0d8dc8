import math
from typing import Any

import pytest
import torch

from fastvae import ops
from fastvae.ops import _linear

from . import support
from .cases import LINEAR_BERNOULLI_NLL
from .linear_contract import LinearContract
from .support import leaves


@pytest.mark.parametrize("most", [8 * 2**20, 32 * 2**20])  # a CPU's and a GPU's
def test_bands_cover_the_columns_within_their_bound(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_linear._BANDS, "meta", most)
    for batch, outputs in ((128, 784), (4096, 3072), (256, 12288), (7, 0), (0, 7), (3, 1), (10**5, 130), (2**16, 5000)):
        bands = list(_linear._bands(torch.empty(batch, 1, device="meta"), outputs))
        assert [band.start for band in bands] == [0, *(band.stop for band in bands[:-1])]
        assert bands[-1].stop == outputs
        assert all(4 * batch * (band.stop - band.start) <= most + 4 * batch * 64 for band in bands)


class TestLinearBernoulliNLL(LinearContract):
    case = LINEAR_BERNOULLI_NLL

    def test_a_layer_of_zeros_costs_log_2_a_pixel(self, place: Any, narrow_bands: None) -> None:
        (hidden,) = leaves((torch.ones(3, 2, device=place.device),))
        target = torch.randint(0, 256, (3, 150), dtype=torch.uint8, device=place.device)
        loss = ops.linear_bernoulli_nll(hidden, hidden.new_zeros(150, 2), None, target, backend=place.backend)
        assert loss.item() == pytest.approx(150 * math.log(2), rel=1e-5)

    @support.not_finite
    @pytest.mark.parametrize("bad", [float("inf"), float("nan")])
    def test_what_is_not_finite_stays_so(self, place: Any, narrow_bands: None, bad: float) -> None:
        weight = torch.ones(150, 2, device=place.device)
        weight[100, 1] = bad
        target = torch.zeros(3, 150, device=place.device)
        for reduction in support.REDUCTIONS:
            loss = ops.linear_bernoulli_nll(
                torch.ones(3, 2, device=place.device), weight, None, target, reduction=reduction, backend=place.backend
            )
            assert not loss.isfinite().any()
