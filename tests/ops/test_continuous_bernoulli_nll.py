from typing import Any

import pytest
import torch

from . import support
from .cases import CONTINUOUS_BERNOULLI_NLL
from .pixel_contract import PixelContract
from .support import assert_accurate


class TestContinuousBernoulliNLL(PixelContract):
    case = CONTINUOUS_BERNOULLI_NLL

    @pytest.mark.parametrize("dtype", support.DTYPES, ids=str)
    def test_accuracy_near_one_half(self, place: Any, dtype: torch.dtype) -> None:
        # One logit a row, so that no neighbour hides a loss of digits. The form with 0 / 0 loses them all here.
        for scale in (0.0, 1e-6, 1e-3, 0.1, 0.249, 0.251, 0.99, 1.01, 3.0):
            logits = torch.tensor([[-scale], [scale]], dtype=dtype, device=place.device)
            target = torch.tensor([[51], [204]], dtype=torch.uint8, device=place.device)
            assert_accurate(self.case, support.Inputs((logits,), (target,)), place.backend, reduction="none")

    @pytest.mark.parametrize("dtype", support.DTYPES, ids=str)
    def test_extreme_logits_stay_right(self, place: Any, dtype: torch.dtype) -> None:
        logits = torch.tensor([[1e4], [1e4], [-1e4], [-1e4]], dtype=dtype, device=place.device)
        target = torch.tensor([[0], [255], [0], [255]], dtype=torch.uint8, device=place.device)
        assert_accurate(self.case, support.Inputs((logits,), (target,)), place.backend, reduction="none")
