import math
from typing import Any

import pytest
import torch

from fastvae import ops, reference

from . import support
from .cases import GAUSSIAN_LOGVAR_NLL
from .pixel_contract import PixelContract
from .support import assert_accurate


class TestGaussianLogvarNLL(PixelContract):
    case = GAUSSIAN_LOGVAR_NLL

    @pytest.mark.parametrize("logvar", [-80.0, -20.0, 0.0, 20.0, 80.0])
    def test_extreme_variances_stay_right(self, place: Any, logvar: float) -> None:
        inputs = self.case.inputs((5, 8), torch.float32, place.device)
        inputs.tensors[0].mul_(1e-3)
        inputs.tensors[1].fill_(logvar)
        for reduction in support.REDUCTIONS:
            assert_accurate(self.case, inputs, place.backend, reduction=reduction, full=True)

    @support.not_finite
    def test_a_gradient_over_fp32_is_infinite_where_the_loss_is_not(self, place: Any) -> None:
        # A pixel 0.4 off: e^90 times 0.08 is below the largest number of fp32, times 0.4 it is above.
        mean, logvar = (torch.full((1, 1), value, device=place.device) for value in (0.6, -90.0))
        white = torch.full((1, 1), 255, dtype=torch.uint8, device=place.device)
        inputs = support.Inputs((mean, logvar), (white,))
        loss, gradients = support.value_and_grad(self.case.fused, inputs, backend=place.backend, reduction="sum")
        exact = self.case.eager(*inputs.to(torch.float64).tensors, *inputs.constants, reduction="sum")
        assert support.error(loss[0], exact[0]) < 1e-5
        assert gradients[0].item() == -torch.inf


# One log-variance for all pixels: a 0-d parameter.
def shared(function: Any) -> Any:
    return lambda mean, logvar, target, **options: (function(mean, logvar.sum(), target, **options),)


def shared_inputs(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> support.Inputs:
    inputs = GAUSSIAN_LOGVAR_NLL.make(shape, dtype, generator)
    return support.Inputs((inputs.tensors[0], torch.full((1,), -0.7, dtype=dtype)), inputs.constants)


SHARED = support.Case(
    "gaussian_logvar_nll, shared", shared(ops.gaussian_logvar_nll), shared(reference.gaussian_logvar_nll), shared_inputs
)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("dtype", support.DTYPES, ids=str)
def test_one_logvar_for_all_pixels(place: Any, dtype: torch.dtype, full: bool) -> None:
    for shape in ((3, 5), (7, 33), (2, 3, 4, 4)):
        inputs = SHARED.inputs(shape, dtype, place.device)
        for reduction in support.REDUCTIONS:
            for weight in (0.5, torch.tensor(0.5, device=place.device)):
                options = {"reduction": reduction, "weight": weight, "full": full}
                assert_accurate(SHARED, inputs, place.backend, scalar=2.0, **options)


def test_gradcheck_of_one_logvar(place: Any) -> None:
    inputs = SHARED.inputs((2, 3), torch.float64, place.device)
    for reduction in support.REDUCTIONS:

        def function(mean: torch.Tensor, logvar: torch.Tensor, reduction: str = reduction) -> Any:
            return SHARED.fused(mean, logvar, *inputs.constants, reduction=reduction, backend=place.backend)

        assert torch.autograd.gradcheck(function, support.leaves(inputs.tensors))


def test_the_second_derivative_in_one_logvar_is_right(place: Any) -> None:
    mean = torch.zeros(1, 4, device=place.device)
    target = torch.ones(1, 4, device=place.device)
    logvar = torch.tensor(0.3, device=place.device, requires_grad=True)
    loss = ops.gaussian_logvar_nll(mean, logvar, target, backend=place.backend)
    (first,) = torch.autograd.grad(loss, logvar, create_graph=True)
    (second,) = torch.autograd.grad(first, logvar)
    torch.testing.assert_close(second.item(), 2 * math.exp(-0.3))


def test_a_shared_variance_copies_nothing_from_the_host(place, no_host_copies):
    mean = torch.randn(5, 12, device=place.device)
    target = torch.rand(5, 12, device=place.device)
    logvar = torch.zeros((), device=place.device, requires_grad=True)
    with no_host_copies:
        loss = ops.gaussian_logvar_nll(mean, logvar, target, weight=0.5, reduction="sum", backend=place.backend)
        torch.autograd.grad(loss, logvar)
