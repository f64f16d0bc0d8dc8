import functools
from typing import Any

import pytest
import torch

from fastvae import ops, reference

from . import support
from .cases import BERNOULLI_NLL
from .loss_contract import LossContract
from .support import assert_accurate, assert_close, leaves

LN2 = 0.6931471805599453


class TestBernoulliNLL(LossContract):
    case = BERNOULLI_NLL

    @pytest.mark.parametrize("target", [torch.uint8, torch.float32, "same"], ids=str)
    @pytest.mark.parametrize("dtype", support.DTYPES, ids=str)
    def test_accuracy_for_every_target_type(self, place: Any, dtype: torch.dtype, target: Any) -> None:
        make = functools.partial(self.case.make, target=dtype if target == "same" else target)
        inputs = make(place.affordable((7, 784)), dtype, torch.Generator().manual_seed(5)).to(place.device)
        for reduction in support.REDUCTIONS:
            assert_accurate(self.case, inputs, place.backend, reduction=reduction)

    def test_a_target_of_another_float_type_is_converted(self, place: Any) -> None:
        logits = torch.randn(4, 9, device=place.device)
        target = torch.rand(4, 9, device=place.device)
        expected = ops.bernoulli_nll(logits, target, backend=place.backend)
        for dtype, allowed in ((torch.float64, 1e-6), (torch.bfloat16, 1e-2), (torch.float16, 1e-3)):
            loss = ops.bernoulli_nll(logits, target.to(dtype), backend=place.backend)
            assert loss.dtype == torch.float32
            assert support.error(loss, expected) <= allowed

    def test_every_uint8_value_is_its_quotient_by_255_to_the_bit(self, place: Any) -> None:
        pixels = torch.arange(256, dtype=torch.uint8, device=place.device).reshape(2, 128)
        quotient = pixels.float() / 255
        assert not torch.equal(quotient, pixels.float() * (1 / 255)), "else this test shows nothing"
        logits = torch.full((2, 128), 1.0, device=place.device)
        for reduction in support.REDUCTIONS:
            results = []
            for target in (pixels, quotient):
                (leaf,) = leaves((logits,))
                loss = ops.bernoulli_nll(leaf, target, reduction=reduction, backend=place.backend)
                loss.backward(torch.ones_like(loss))
                results.append((loss.detach(), leaf.grad))
            (loss, gradient), (expected, expected_gradient) = results
            assert torch.equal(gradient, expected_gradient)
            assert_close((loss,), (expected,))  # the order of the sum may depend on the target's type

    @pytest.mark.parametrize("dtype", support.DTYPES, ids=str)
    def test_gradient_at_logit_zero_is_half_minus_x(self, place: Any, dtype: torch.dtype) -> None:
        x = torch.tensor([[0.0, 0.25, 0.5, 0.75, 1.0]], dtype=dtype, device=place.device)
        for zero in (0.0, -0.0):
            logits = torch.full_like(x, zero).requires_grad_()
            loss = ops.bernoulli_nll(logits, x, reduction="sum", backend=place.backend)
            loss.backward()
            assert torch.equal(logits.grad, 0.5 - x)
            assert loss.item() == pytest.approx(5 * LN2, rel=1e-6)

    @pytest.mark.parametrize("dtype", support.DTYPES, ids=str)
    def test_extreme_logits_stay_right(self, place: Any, dtype: torch.dtype) -> None:
        # fp16 ends at 65504: 1e4 is in the range of every type, and exact in none but fp32 and fp64.
        big = torch.tensor(1e4, dtype=dtype).item()
        logits = torch.tensor([[big], [big], [-big], [-big], [17.0]], dtype=dtype, device=place.device)
        target = torch.tensor([[0], [255], [0], [255], [0]], dtype=torch.uint8, device=place.device)
        logits.requires_grad_()
        loss = ops.bernoulli_nll(logits, target, reduction="none", backend=place.backend)
        # One element a row, so that no neighbour hides a loss of digits.
        assert loss.tolist() == [big, 0.0, 0.0, big, pytest.approx(17.0 + 4.1399e-8, rel=1e-6)]
        loss.sum().backward()
        assert logits.grad.flatten().tolist() == [1.0, 0.0, 0.0, -1.0, pytest.approx(1.0, rel=1e-6)]

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    def test_small_losses_keep_their_digits(self, place: Any, dtype: torch.dtype) -> None:
        # -log sigmoid(15) = 3.06e-7: log(1 + exp(-15)) has rounded it to 3.6e-7 in fp32, log1p has not.
        logits = torch.tensor([[15.0], [-15.0], [30.0]], dtype=dtype, device=place.device)
        target = torch.tensor([[255], [0], [255]], dtype=torch.uint8, device=place.device)
        loss = ops.bernoulli_nll(logits, target, reduction="none", backend=place.backend)
        exact = torch.log1p(torch.exp(-logits.double().abs())).flatten()
        naive = torch.log(1 + torch.exp(-logits.float().abs())).flatten()
        assert ((loss.double() - exact).abs() / exact).max().item() < 1e-5
        assert ((naive.double() - exact).abs() / exact).max().item() > 1e-2, "else this test shows nothing"

    @support.not_finite
    @pytest.mark.parametrize("reduction", support.REDUCTIONS)
    @pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan")])
    def test_what_is_not_finite_stays_so(self, place: Any, bad: float, reduction: str) -> None:
        # A soft target, for which both infinities are infinitely wrong.
        logits = torch.zeros(3, 40, device=place.device)
        logits[1, 17] = bad
        target = torch.full_like(logits, 0.5)
        loss = ops.bernoulli_nll(logits, target, reduction=reduction, backend=place.backend)
        assert not (loss[1] if reduction == "none" else loss).isfinite()
        if reduction == "none":
            assert loss[[0, 2]].isfinite().all()

    @support.not_finite
    def test_a_nan_pixel_is_seen(self, place: Any) -> None:
        target = torch.full((3, 40), 0.5, device=place.device)
        target[2, 39] = float("nan")
        assert ops.bernoulli_nll(torch.zeros_like(target), target, backend=place.backend).isnan()

    def test_under_autocast_the_loss_is_fp32(self, place: Any) -> None:
        layer = torch.nn.Linear(8, 12, device=place.device)
        target = torch.randint(0, 256, (5, 12), dtype=torch.uint8, device=place.device)
        with torch.autocast(place.device, torch.bfloat16):
            logits = layer(torch.randn(5, 8, device=place.device))
            loss = ops.bernoulli_nll(logits, target, backend=place.backend)
        assert logits.dtype == torch.bfloat16
        assert loss.dtype == torch.float32
        loss.backward()
        assert layer.weight.grad.dtype == torch.float32
        assert layer.weight.grad.isfinite().all()


@pytest.mark.parametrize("row_offset", [0, 3])
@pytest.mark.parametrize("shape", [(5, 7), (9, 64), (3, 2, 5, 5)], ids=str)
def test_binarized_inside_is_binarized_before(place: Any, shape: tuple[int, ...], row_offset: int) -> None:
    inputs = BERNOULLI_NLL.inputs(place.affordable(shape), torch.float32, place.device)
    (logits,) = leaves(inputs.tensors)
    (target,) = inputs.constants
    key = ops.Noise(3, 5, row_offset, stream=2)
    before = key.binarize(target)
    assert set(before.unique().tolist()) == {0, 255}
    for reduction in support.REDUCTIONS:
        options = {"reduction": reduction, "backend": place.backend}
        inside = ops.bernoulli_nll(logits, target, binarize=key, **options)
        expected = ops.bernoulli_nll(logits, before, **options)
        assert_close((inside,), (expected,))
        gradients = [torch.autograd.grad(loss.sum(), logits)[0] for loss in (inside, expected)]
        assert torch.equal(*gradients)


@pytest.mark.parametrize("row_offset", [0, 3, 2**36 + 5])
@pytest.mark.parametrize("shape", [(5, 7), (9, 64), (3, 2, 5, 5), (40, 1, 28, 28), (0, 4), (4, 0)], ids=str)
def test_every_backend_draws_the_specified_pixels(place: Any, shape: tuple[int, ...], row_offset: int) -> None:
    shape = place.affordable(shape)
    target = torch.randint(0, 256, shape, dtype=torch.uint8)
    target.flatten()[:2] = torch.tensor([0, 255], dtype=torch.uint8)[: target.numel()]
    key = ops.Noise(2**40 + 3, 5, row_offset, stream=2)
    drawn = key.binarize(target.to(place.device), backend=place.backend)
    assert torch.equal(drawn.cpu(), key.binarize(target, backend="reference"))
    strided = target.to(place.device).repeat(1, 2, *[1] * (len(shape) - 2))[:, : shape[1]]
    assert torch.equal(key.binarize(strided, backend=place.backend), drawn)


def test_each_pixel_is_white_as_often_as_it_is_bright() -> None:
    draws = 2**14
    levels = torch.tensor([0, 1, 64, 128, 254, 255], dtype=torch.uint8)
    target = levels.repeat(draws, 1)
    white = ops.Noise(11, 2).binarize(target).double().mean(0) / 255
    bright = levels.double() / 255
    assert white[0] == 0
    assert white[-1] == 1
    deviation = (bright * (1 - bright) / draws).sqrt()
    assert ((white - bright).abs() <= 4 * deviation).all()


@pytest.mark.parametrize("stream", [0, 1, 3, 7])
def test_one_key_draws_pixels_that_do_not_depend_on_its_latents(stream: int) -> None:
    key = ops.Noise(1, stream=stream)
    target = torch.full((2000, 20), 128, dtype=torch.uint8)
    eps = key.draw((2000, 20)).double()
    white = key.binarize(target).double() / 255
    together = torch.cat((eps, white), 1).T.corrcoef()
    assert together.fill_diagonal_(0).abs().max() < 6 / 2000**0.5


def test_the_pixels_of_a_key_are_those_of_the_specification_with_bit_30_flipped() -> None:
    target = torch.full((4, 100), 128, dtype=torch.uint8)
    key = ops.Noise(1, 2, stream=3 ^ 2**30)
    assert torch.equal(key.binarize(target), reference.binarize(target, key.state, stream=3))


def test_steps_draw_other_pixels() -> None:
    target = torch.full((4, 100), 128, dtype=torch.uint8)
    assert not torch.equal(ops.Noise(1, 1).binarize(target), ops.Noise(1, 2).binarize(target))
    rows = ops.Noise(1, 1).binarize(target)
    assert torch.equal(rows[2:], ops.Noise(1, 1, row_offset=2).binarize(target[2:]))
