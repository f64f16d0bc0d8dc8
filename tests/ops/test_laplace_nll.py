from typing import Any

import pytest
import torch

from fastvae import ops

from . import support
from .cases import LAPLACE_NLL
from .pixel_contract import PixelContract
from .support import assert_accurate


class TestLaplaceNLL(PixelContract):
    case = LAPLACE_NLL

    @pytest.mark.parametrize("full", [False, True])
    @pytest.mark.parametrize("scale", [1e-3, 0.1, 2.5])
    @pytest.mark.parametrize("dtype", support.DTYPES, ids=str)
    def test_accuracy_for_every_scale(self, place: Any, dtype: torch.dtype, scale: float, full: bool) -> None:
        inputs = self.case.inputs((7, 33), dtype, place.device)
        for reduction in support.REDUCTIONS:
            assert_accurate(self.case, inputs, place.backend, reduction=reduction, scale=scale, full=full, weight=0.5)

    def test_the_gradient_is_the_sign_and_zero_where_all_is_right(self, place: Any) -> None:
        location = torch.tensor([[0.0, 0.5, 1.0]], device=place.device, requires_grad=True)
        target = torch.full_like(location, 0.5).detach()
        ops.laplace_nll(location, target, 0.25, backend=place.backend).backward()
        assert location.grad.tolist() == [[-4.0, 0.0, 4.0]]
