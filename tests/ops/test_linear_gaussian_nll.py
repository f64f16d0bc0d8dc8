from typing import Any

import pytest
import torch

from fastvae import ops

from .cases import LINEAR_GAUSSIAN_NLL
from .linear_contract import LinearContract
from .support import assert_accurate


class TestLinearGaussianNLL(LinearContract):
    case = LINEAR_GAUSSIAN_NLL

    @pytest.mark.parametrize("full", [False, True])
    def test_variance_and_constant(self, place: Any, narrow_bands: None, full: bool) -> None:
        inputs = self.case.inputs((5, 130), torch.float32, place.device)
        for reduction in self.case.reductions:
            assert_accurate(self.case, inputs, place.backend, reduction=reduction, variance=0.1, full=full)

    def test_the_best_layer_is_that_of_least_squares(self, place: Any, narrow_bands: None) -> None:
        # An independent truth: at the normal equations' solution the gradient vanishes, and nowhere else.
        generator = torch.Generator().manual_seed(3)
        hidden = torch.randn(40, 6, generator=generator, dtype=torch.float64).to(place.device)
        target = torch.rand(40, 130, generator=generator, dtype=torch.float64).to(place.device)
        weight = torch.linalg.lstsq(hidden, target).solution.t().requires_grad_()
        loss = ops.linear_gaussian_nll(hidden, weight, None, target, backend=place.backend)
        (gradient,) = torch.autograd.grad(loss, weight)
        assert gradient.abs().max() < 1e-13
