import functools
import math
from typing import Any

import pytest
import torch

from fastvae import ops, reference

from . import support
from .cases import CATEGORICAL_NLL, CLASSES
from .loss_contract import LossContract
from .support import Inputs, assert_accurate, assert_close, cotangents, leaves, value_and_grad

INF, NAN = float("inf"), float("nan")


def inputs_of(classes: int, shape: tuple[int, ...], dtype: torch.dtype, target: torch.dtype) -> Inputs:
    generator = torch.Generator().manual_seed(classes)
    logits = 4 * torch.randn(shape[0], classes, *shape[1:], generator=generator, dtype=torch.float64)
    return Inputs((logits.to(dtype),), (torch.randint(0, min(classes, 256), shape, generator=generator).to(target),))


class TestCategoricalNLL(LossContract):
    case = CATEGORICAL_NLL

    def test_expanded_rows_and_elements(self, place: Any) -> None:
        for source, shape in (((1, 20), (6, 20)), ((6, 1), (6, 20)), ((1, 1), (6, 20))):
            inputs = self.case.inputs(source, torch.float32, place.device)
            (logits,) = leaves(inputs.tensors)
            (target,) = inputs.constants
            wide = logits.expand(shape[0], CLASSES, shape[1])
            options = {"reduction": "sum", "backend": place.backend}
            loss = ops.categorical_nll(wide, target.expand(shape), **options)
            (gradient,) = torch.autograd.grad(loss, logits)
            dense = Inputs((wide.detach().contiguous(),), (target.expand(shape).contiguous(),))
            expected, (whole,) = value_and_grad(self.case.fused, dense, **options)
            assert_close((loss.detach(),), expected)
            assert_close((gradient,), (whole.sum_to_size(logits.shape),), factor=2)

    @pytest.mark.parametrize("target", [torch.uint8, torch.int64], ids=str)
    @pytest.mark.parametrize("dtype", support.DTYPES, ids=str)
    @pytest.mark.parametrize("classes", [1, 2, 17, 256, 300])
    def test_accuracy_for_every_number_of_classes(
        self, place: Any, classes: int, dtype: torch.dtype, target: torch.dtype
    ) -> None:
        largest = {256: torch.uint8, 300: torch.int64}  # of its type, and past it
        if place.interpreted and (dtype != torch.float32 or largest.get(classes, target) != target) and classes != 17:
            pytest.skip("the interpreter takes every number of classes in fp32, and every type in one")
        # One pixel a row, a few, and more than a tile of C++ holds.
        for shape in ((5,), (3, 7)) if place.interpreted else ((37,), (3, 7), (2, 1100)):
            inputs = inputs_of(classes, shape, dtype, target).to(place.device)
            for reduction in support.some(support.REDUCTIONS, place, dtype):
                assert_accurate(self.case, inputs, place.backend, reduction=reduction)

    def test_is_cross_entropy(self, place: Any) -> None:
        inputs = inputs_of(9, (4, 5, 6), torch.float64, torch.int64).to(place.device)

        def theirs(logits: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor]:
            return (torch.nn.functional.cross_entropy(logits, target, reduction="sum") / len(logits),)

        ours = value_and_grad(functools.partial(self.case.fused, backend=place.backend), inputs)
        for actual, expected in zip(ours, value_and_grad(theirs, inputs), strict=True):
            assert_close(actual, expected)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    def test_extreme_logits_stay_right_and_small_losses_keep_their_digits(self, place: Any, dtype: torch.dtype) -> None:
        logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4], [17.0, 0.0], [0.0, 17.0]], dtype=dtype, device=place.device)
        logits.requires_grad_()
        target = torch.zeros(4, dtype=torch.uint8, device=place.device)
        loss = ops.categorical_nll(logits, target, reduction="none", backend=place.backend)
        (gradient,) = torch.autograd.grad(loss.sum(), logits)
        small = math.log1p(math.exp(-17))
        share = math.exp(-17) / (1 + math.exp(-17))
        # The reference has not the last two in fp32: its log_softmax rounds them to 0 and 5.96e-8.
        close = functools.partial(pytest.approx, rel=1e-5, abs=1e-7 if place.backend == "reference" else 1e-30)
        assert loss.tolist() == [0.0, 2e4, close(small), close(17 + small)]
        assert gradient[:, 0].tolist() == [0.0, -1.0, close(-share), close(share - 1)]

    @support.not_finite
    @pytest.mark.parametrize(
        ("row", "value"),
        [([0, -INF, 0], INF), ([0, 0, -INF], math.log(2)), ([-INF] * 3, NAN), ([0, 0, INF], NAN), ([0, INF, 0], NAN),
         ([0, 0, NAN], NAN), ([0, NAN, 0], NAN), ([NAN] * 3, NAN)],
        ids=str,
    )  # fmt: skip
    @pytest.mark.parametrize("dtype", support.DTYPES, ids=str)
    def test_what_is_not_finite(self, place: Any, dtype: torch.dtype, row: list[float], value: float) -> None:
        logits = torch.zeros(3, 3, dtype=dtype, device=place.device)
        logits[1] = torch.tensor(row, dtype=dtype)
        target = torch.ones(3, dtype=torch.int64, device=place.device)
        for reduction in support.REDUCTIONS:
            loss = ops.categorical_nll(logits, target, reduction=reduction, backend=place.backend)
            if reduction == "none":
                assert loss[[0, 2]].tolist() == pytest.approx([math.log(3)] * 2)
                assert loss[1].item() == pytest.approx(value, nan_ok=True)
            else:
                assert not loss.isfinite() or value == math.log(2)

    @support.not_finite
    @pytest.mark.parametrize("index", [-1, 3, 2**40, -(2**40)])
    def test_an_index_that_is_no_class_is_nan_where_it_cannot_be_looked_at(self, place: Any, index: int) -> None:
        # As in a compiled graph: the operators themselves, without the check of the public function.
        if place.backend == "reference":
            operator = functools.partial(reference.categorical_nll, reduction="sum")
        else:
            from fastvae.ops import _autograd, _library  # noqa: PLC0415

            operators = _library.resolve(place.backend, torch.empty(0, device=place.device))
            reduce = _autograd.Reduce(1, 1.0, None)
            operator = lambda x, t: _autograd.fused_loss(operators, "categorical_nll", (x, t), (), reduce)  # noqa: E731
        logits = torch.zeros(2, 3, 2, device=place.device, requires_grad=True)
        target = torch.tensor([[0, 1], [index, 2]], device=place.device)
        loss = operator(logits, target)
        loss.backward(*cotangents((loss,)))
        assert loss.isnan()
        assert logits.grad.isnan().nonzero().tolist() == [[1, k, 0] for k in range(3)]

    @pytest.mark.parametrize("classes", [1, 17, 256])
    @pytest.mark.parametrize("dtype", support.DTYPES, ids=str)
    def test_one_pixel_a_row(self, place: Any, dtype: torch.dtype, classes: int) -> None:
        if place.interpreted and dtype != torch.float32 and classes != 17:
            pytest.skip("the interpreter takes every number of classes in fp32, and every type in one")
        # The classes lie side by side, and whole vectors and a remainder of them are met.
        generator = torch.Generator().manual_seed(3)
        logits = 4 * torch.randn(5, classes, generator=generator, dtype=torch.float64)
        target = torch.randint(0, classes, (5,), generator=generator)
        inputs = support.Inputs((logits.to(dtype),), (target,)).to(place.device)
        for reduction in support.REDUCTIONS:
            assert_accurate(self.case, inputs, place.backend, scalar=2.0, reduction=reduction)
