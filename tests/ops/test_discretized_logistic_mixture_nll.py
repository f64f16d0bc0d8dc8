import functools
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_expit, log_softmax, logsumexp

from fastvae import ops, reference

from . import support
from .cases import DISCRETIZED_LOGISTIC_MIXTURE_NLL, MIXTURES
from .loss_contract import LossContract
from .support import Inputs, assert_accurate, assert_close, leaves, value_and_grad

INF, NAN = float("inf"), float("nan")
FLOOR = -7 - math.log(2)


def pixelcnn(head: np.ndarray, pixels: np.ndarray, mixtures: int) -> np.ndarray:
    """PixelCNN++ in its own units, [-1, 1], channels last as in its code; the bins exact. (B,) nats."""
    x = pixels.astype(np.float64) * 2 / 255 - 1
    channels = x.shape[-1]
    logits = head[..., :mixtures]
    rest = head[..., mixtures:]
    total = log_softmax(logits, -1)
    # Quantity, channel, component.
    means, log_scales = (
        rest[..., n * channels * mixtures : (n + 1) * channels * mixtures].reshape(*x.shape, mixtures) for n in (0, 1)
    )
    coefficients = np.tanh(rest[..., 2 * channels * mixtures :].reshape(*x.shape[:-1], -1, mixtures))
    shifts = {0: 0.0}
    if channels == 3:
        red = x[..., 0, None]
        green = x[..., 1, None]
        shifts[1] = coefficients[..., 0, :] * red
        shifts[2] = coefficients[..., 1, :] * red + coefficients[..., 2, :] * green
    for c in range(channels):
        scale = np.exp(-np.maximum(log_scales[..., c, :], -7))
        centred = x[..., c, None] - means[..., c, :] - shifts[c]
        plus = scale * (centred + 1 / 255)
        minus = scale * (centred - 1 / 255)
        middle = log_expit(plus) + log_expit(-minus) + np.log(-np.expm1(minus - plus))
        level = pixels[..., c, None]
        total = total + np.where(level == 0, log_expit(plus), np.where(level == 255, log_expit(-minus), middle))
    return -logsumexp(total, -1).sum(axis=(1, 2))


class TestDiscretizedLogisticMixtureNLL(LossContract):
    case = DISCRETIZED_LOGISTIC_MIXTURE_NLL

    def test_expanded_rows_and_elements(self, place: Any) -> None:
        for source, shape in (((1, 6), (4, 6)), ((4, 1), (4, 6)), ((1, 1), (4, 6))):
            inputs = self.case.inputs(source, torch.float32, place.device)
            (head,) = leaves(inputs.tensors)
            (target,) = inputs.constants
            wide = (tensor.expand(shape[0], tensor.shape[1], shape[1]) for tensor in (head, target))
            options = {"reduction": "sum", "backend": place.backend}
            arguments = tuple(wide)
            (loss,) = self.case.fused(*arguments, **options)
            (gradient,) = torch.autograd.grad(loss, head)
            dense = Inputs((arguments[0].detach().contiguous(),), (arguments[1].contiguous(),))
            expected, (whole,) = value_and_grad(self.case.fused, dense, **options)
            assert_close((loss.detach(),), expected)
            assert_close((gradient,), (whole.sum_to_size(head.shape),), factor=2)

    @pytest.mark.parametrize("dtype", support.DTYPES, ids=str)
    def test_accuracy_in_grey(self, place: Any, dtype: torch.dtype) -> None:
        for shape in ((5,), (2, 40)):
            inputs = self.case.make(shape, dtype, torch.Generator().manual_seed(3), channels=1).to(place.device)
            for reduction in support.REDUCTIONS:
                assert_accurate(self.case, inputs, place.backend, reduction=reduction)

    @pytest.mark.parametrize("mixtures", [1, 3, 10])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_converted_weights_of_pixelcnn_agree_exactly(self, place: Any, channels: int, mixtures: int) -> None:
        rng = np.random.default_rng(channels + mixtures)
        pixels = rng.integers(0, 256, (2, 3, 4, channels), dtype=np.uint8)
        pixels[0, 0, :2] = 0
        pixels[0, 1, :2] = 255
        head = rng.normal(size=(2, 3, 4, mixtures * (1 + 2 * channels + channels * (channels - 1) // 2)))
        means, scales = (slice(mixtures * (1 + n * channels), mixtures * (1 + (n + 1) * channels)) for n in (0, 1))
        head[..., scales] = 3 * head[..., scales] - 3  # some below the floor, some wider than the picture
        ours = head.copy()
        ours[..., means] = (ours[..., means] + 1) / 2
        ours[..., scales] -= math.log(2)
        loss = ops.discretized_logistic_mixture_nll(
            torch.from_numpy(ours).permute(0, 3, 1, 2).to(place.device),
            torch.from_numpy(pixels).permute(0, 3, 1, 2).to(place.device),
            mixtures,
            reduction="none",
            backend=place.backend,
        )
        np.testing.assert_allclose(loss.cpu().numpy(), pixelcnn(head, pixels, mixtures), rtol=1e-11)

    def test_all_values_of_a_pixel_sum_to_one(self, place: Any) -> None:
        if place.interpreted:
            pytest.skip("a quarter of a minute for what follows from the accuracy of each pixel")
        head = self.case.make((1,), torch.float64, torch.Generator().manual_seed(8), channels=1).tensors[0]
        pixels = torch.arange(256, dtype=torch.uint8, device=place.device)[:, None]
        head = head.to(place.device).expand(256, -1)
        nll = self.case.fused(head, pixels, reduction="none", backend=place.backend)[0]
        assert (-nll).exp().sum().item() == pytest.approx(1, rel=1e-12)

    @pytest.mark.parametrize("log_scale", [-20.0, -7.69, -5.0, -1.0, 0.0, 5.0, 40.0, 80.0])
    @pytest.mark.parametrize("mean", [-30.0, 0.0, 0.5, 1.0, 7.0])
    def test_tails_and_scales_are_right_pixel_by_pixel(self, place: Any, mean: float, log_scale: float) -> None:
        if place.interpreted and mean in (0.0, 7.0):
            pytest.skip("the interpreter takes one mean beside the pixels, one among them, and one at their edge")
        pixels = torch.tensor([0, 1, 100, 254, 255], dtype=torch.uint8)[:, None]
        head = torch.tensor([0.0, mean, log_scale]).expand(5, 3)
        inputs = Inputs((head.contiguous(),), (pixels,)).to(place.device)

        def one(function: Any, tensors: Inputs, **options: Any) -> Any:
            call = lambda head, target: (function(head, target, 1, reduction="none", **options),)  # noqa: E731
            leaf = tensors.tensors[0].clone().requires_grad_()
            loss = call(leaf, *tensors.constants)[0]
            return loss.detach().double().cpu(), torch.autograd.grad(loss.sum(), leaf)[0].double().cpu()

        loss, gradient = one(ops.discretized_logistic_mixture_nll, inputs, backend=place.backend)
        # The truth has the kernel's fp32 pixels, or narrow scales would show the rounding of x = 100/255 alone.
        exact = inputs.to(torch.float64)
        truth, slope = one(reference.discretized_logistic_mixture_nll, exact)
        assert loss.isfinite().all()
        # A distance from a pixel is rounded before it is divided by the scale.
        blur = 2e-7 * math.exp(-max(log_scale, FLOOR))
        assert ((loss - truth).abs() <= 3e-6 * truth.abs() + blur).all()
        unit = math.exp(-max(log_scale, FLOOR))
        assert ((gradient - slope)[:, 1].abs() <= 3e-6 * unit + blur * unit).all()
        assert ((gradient - slope)[:, 2].abs() <= 3e-6 * (1 + slope[:, 2].abs()) + blur * (1 + truth)).all()
        if log_scale < FLOOR:
            assert not gradient[:, 2].any()

    @support.not_finite
    @pytest.mark.parametrize("bad", [INF, -INF, NAN])
    @pytest.mark.parametrize("plane", range(2 * MIXTURES * 5))
    def test_what_is_not_finite(self, place: Any, plane: int, bad: float) -> None:
        if place.interpreted and plane not in (1, 2, 7, 8, 13, 14, 19):
            pytest.skip("the interpreter takes one logit, and of all else the first plane and the last")
        inputs = self.case.inputs((3, 2), torch.float32, place.device)
        head = inputs.tensors[0].clone()
        target = inputs.constants[0]
        head[1, plane, 1] = bad
        loss = self.case.fused(head, target, reduction="none", backend=place.backend)[0]
        expected = self.case.eager(head.double(), target, reduction="none")[0]
        logit = plane < 2
        log_scale = 8 <= plane < 14
        coefficient = plane >= 14
        harmless = ((logit or log_scale) and bad == -INF) or (coefficient and not math.isnan(bad))
        assert bool(loss[1].isfinite()) == harmless
        assert support.error(loss, expected) < 1e-5
        total = self.case.fused(head, target, backend=place.backend)[0]
        assert bool(total.isfinite()) == harmless

    @support.not_finite
    def test_no_component_left_is_nan(self, place: Any) -> None:
        inputs = self.case.inputs((3, 2), torch.float32, place.device)
        head = inputs.tensors[0].clone()
        target = inputs.constants[0]
        head[1, :MIXTURES, 1] = -INF
        loss = functools.partial(self.case.fused, head, target, backend=place.backend)(reduction="none")[0]
        assert loss.isnan().tolist() == [False, True, False]


def pixelcnn_nll(head: torch.Tensor, x: torch.Tensor, mixtures: int) -> torch.Tensor:
    """The loss as PixelCNN++'s program orders and scales it (openai/pixel-cnn, nn.py): channels last, x in [-1, 1]."""
    batch, height, width, channels = x.shape
    log_shares = head[..., :mixtures].log_softmax(-1)
    planes = head[..., mixtures:].reshape(batch, height, width, channels, 3 * mixtures)
    means = planes[..., :mixtures].clone()
    log_scales = planes[..., mixtures : 2 * mixtures]
    coefficients = planes[..., 2 * mixtures :].tanh()
    x = x.unsqueeze(-1)
    means[..., 1, :] += coefficients[..., 0, :] * x[..., 0, :]
    means[..., 2, :] += coefficients[..., 1, :] * x[..., 0, :] + coefficients[..., 2, :] * x[..., 1, :]
    plus = ((x - means + 1 / 255) * torch.exp(-log_scales)).sigmoid()
    minus = ((x - means - 1 / 255) * torch.exp(-log_scales)).sigmoid()
    inside = torch.where(x < -0.999, plus, torch.where(x > 0.999, 1 - minus, plus - minus))
    return -(log_shares + inside.log().sum(3)).logsumexp(-1).sum() / batch


def test_a_head_of_pixelcnn_in_the_order_that_the_docstring_gives() -> None:
    mixtures = 3
    generator = torch.Generator().manual_seed(0)
    head = torch.randn(2, 4, 5, 10 * mixtures, generator=generator, dtype=torch.float64)
    pixels = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8, generator=generator)
    theirs = pixelcnn_nll(head, pixels.movedim(1, -1).double() / 127.5 - 1, mixtures)
    logits, colours = head.movedim(-1, 1).split([mixtures, 9 * mixtures], 1)
    means, log_scales, coefficients = colours.unflatten(1, (3, 3, mixtures)).unbind(2)
    means, log_scales = (means + 1) / 2, log_scales - math.log(2)
    ours = torch.cat((logits, *(part.flatten(1, 2) for part in (means, log_scales, coefficients))), 1)
    torch.testing.assert_close(ops.discretized_logistic_mixture_nll(ours, pixels, mixtures), theirs)
