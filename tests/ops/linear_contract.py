"""The contract of both operators of a last layer; test_linear_<likelihood>.py subclass it."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fastvae import ops, reference
from fastvae.ops import _linear

from . import cases, support
from .loss_contract import LossContract
from .support import Case, Inputs, assert_accurate, assert_close, value_and_grad


class LinearContract(LossContract):
    """The contract of a last layer beyond that of a loss: its parameters and its bands."""

    @pytest.fixture
    def narrow_bands(self, place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make bands 64 columns wide, the least, so that a small layer has several and a ragged last one."""
        monkeypatch.setitem(_linear._BANDS, place.device, 1)

    def reductions(self, place: Any) -> tuple[str | None, ...]:
        """The reductions for a test that does not depend on them: one in the interpreter, where each costs seconds."""
        return self.case.reductions[:1] if place.interpreted else self.case.reductions

    def whole(self, bias: bool = True) -> Case:
        """The operator of all that it differentiates: hidden, weight and bias."""

        def adapt(function: Any) -> Any:
            def call(*arguments: Tensor, **options: Any) -> tuple[Tensor]:
                *layer, target = arguments
                return (function(*layer, *(() if bias else (None,)), target, **options),)

            return call

        def make(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Inputs:
            batch, outputs = shape
            shapes = ((batch, 24), (outputs, 24), *([(outputs,)] if bias else []))
            layer = (torch.randn(size, generator=generator, dtype=torch.float64) for size in shapes)
            target = cases.random_pixels(shape, torch.uint8, generator)
            return Inputs(tuple((tensor / 4).to(dtype) for tensor in layer), (target,))

        name = self.case.name
        return Case(name, adapt(getattr(ops, name)), adapt(getattr(reference, name)), make)

    def test_the_same_call_gives_the_same_bits(self, place: Any) -> None:
        # On any number of threads, elsewhere; here the products are torch's, which promises that for one number only.
        inputs = self.case.inputs((2, 131) if place.interpreted else (65, 1031), torch.float32, place.device)
        for reduction in self.case.reductions:
            first, second = (
                value_and_grad(self.case.fused, inputs, backend=place.backend, reduction=reduction) for _ in range(2)
            )
            support.assert_same_bits((*first[0], *first[1]), (*second[0], *second[1]))

    @pytest.mark.parametrize("bias", [True, False])
    @pytest.mark.parametrize("dtype", support.DTYPES, ids=str)
    def test_gradients_of_the_parameters(self, place: Any, narrow_bands: None, dtype: torch.dtype, bias: bool) -> None:
        case = self.whole(bias)
        for shape in ((7, 1), (7, 200), (1, 64), (3, 0), (0, 70)):
            inputs = case.inputs(shape, dtype, place.device)
            for reduction in self.reductions(place):
                assert_accurate(case, inputs, place.backend, scalar=-2.5, reduction=reduction, loss_weight=0.75)

    def test_bands_do_not_change_the_numbers(self, place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        case = self.whole()
        inputs = case.inputs((9, 333), torch.float64, place.device)
        for reduction in self.reductions(place):
            options = {"backend": place.backend, "reduction": reduction}
            monkeypatch.setitem(_linear._BANDS, place.device, 2**30)
            expected = value_and_grad(case.fused, inputs, **options)
            for columns in (100,) if place.interpreted else (1, 64, 100, 256):
                monkeypatch.setitem(_linear._BANDS, place.device, columns * 9 * 8)
                actual = value_and_grad(case.fused, inputs, **options)
                assert_close((*actual[0], *actual[1]), (*expected[0], *expected[1]))

    @pytest.mark.parametrize("bias", [True, False])
    def test_only_the_gradients_wanted_are_computed(self, place: Any, narrow_bands: None, bias: bool) -> None:
        case = self.whole(bias)
        inputs = case.inputs((5, 130), torch.float32, place.device)
        for reduction in self.reductions(place):
            options = {"backend": place.backend, "reduction": reduction}
            expected = value_and_grad(case.fused, inputs, **options)[1]
            for chosen in range(1, 2 ** len(inputs.tensors)):
                tensors = [t.clone().requires_grad_(bool(chosen >> at & 1)) for at, t in enumerate(inputs.tensors)]
                outputs = case.fused(*tensors, *inputs.constants, **options)
                torch.autograd.backward(outputs, support.cotangents(outputs))
                for tensor, gradient in zip(tensors, expected, strict=True):
                    assert tensor.requires_grad == (tensor.grad is not None)
                    assert tensor.grad is None or torch.equal(tensor.grad, gradient)

    def test_target_of_any_event_shape_and_strides(self, place: Any, narrow_bands: None) -> None:
        case = self.whole()
        inputs = case.inputs((4, 192), torch.float32, place.device)
        expected = value_and_grad(case.fused, inputs, backend=place.backend)
        image = inputs.constants[0].view(4, 3, 8, 8)
        for target in (image, image.to(memory_format=torch.channels_last), image.repeat(1, 1, 1, 2)[..., :8]):
            actual = value_and_grad(case.fused, Inputs(inputs.tensors, (target,)), backend=place.backend)
            support.assert_same_bits((*actual[0], *actual[1]), (*expected[0], *expected[1]))

    @pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=str)
    def test_autocast(self, place: Any, narrow_bands: None, kind: torch.dtype) -> None:
        # The parameters and their gradients stay in fp32, as those of torch.nn.Linear do.
        case = self.whole()
        inputs = case.inputs((6, 200), torch.float32, place.device)
        inputs = Inputs((inputs.tensors[0].to(kind), *inputs.tensors[1:]), inputs.constants)
        with torch.autocast(place.device, torch.bfloat16):
            actual = value_and_grad(case.fused, inputs, backend=place.backend)
            eager = value_and_grad(case.eager, inputs)
        truth = value_and_grad(case.eager, inputs.to(torch.float64))
        assert actual[0][0].dtype == torch.float32
        assert [gradient.dtype for gradient in actual[1]] == [kind, torch.float32, torch.float32]
        for a, e, t in zip(actual[0] + actual[1], eager[0] + eager[1], truth[0] + truth[1], strict=True):
            assert support.error(a, t) <= support.error(e, t) + support.TOLERANCE[torch.bfloat16]

    @pytest.mark.parametrize("reduction", support.REDUCTIONS)
    def test_one_graph_for_the_whole_layer(self, place: Any, narrow_bands: None, reduction: str) -> None:
        if place.interpreted:
            pytest.skip("the interpreter runs kernels in Python: nothing to compile")
        torch.compiler.reset()
        case = self.whole()
        options = {"backend": place.backend, "reduction": reduction}
        compiled = torch.compile(case.fused, fullgraph=True, dynamic=True, backend="aot_eager")
        with torch._dynamo.config.patch(error_on_recompile=True):
            for batch in (5, 7, 64):
                inputs = case.inputs((batch, 200), torch.float32, place.device)
                expected = value_and_grad(case.fused, inputs, -2.5, **options)
                actual = value_and_grad(compiled, inputs, -2.5, **options)
                support.assert_same_bits((*actual[0], *actual[1]), (*expected[0], *expected[1]))
        torch.compiler.reset()
