"""The contract of every operator, on every backend. Each ``test_<op>.py`` subclasses it and adds its own tests."""

from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint

from . import support
from .support import Case, assert_accurate, assert_close, assert_same_bits, cotangents, leaves, value_and_grad

sizes = st.integers(1, 9)
shapes = st.one_of(st.tuples(sizes, st.integers(1, 70)), st.tuples(sizes, sizes, sizes), st.tuples(*[sizes] * 4))
seeds = st.integers(0, 2**31)


class OpContract:
    case: ClassVar[Case]

    # Accuracy, against fp64.

    @pytest.mark.parametrize("shape", support.SHAPES, ids=str)
    @pytest.mark.parametrize("dtype", support.DTYPES, ids=str)
    def test_accuracy(self, place: Any, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        support.skip_products(place, dtype, shape)
        inputs = self.case.inputs(place.affordable(shape), dtype, place.device)
        for reduction in support.some(self.case.reductions, place, dtype):
            assert_accurate(self.case, inputs, place.backend, **self.case.options(reduction))

    @pytest.mark.parametrize("dtype", support.DTYPES, ids=str)
    def test_grad_output_and_weight_scale_the_gradients(self, place: Any, dtype: torch.dtype) -> None:
        inputs = self.case.inputs(place.affordable((7, 33)), dtype, place.device)
        for reduction in support.some(self.case.reductions, place, dtype):
            options = self.case.options(reduction, weight=0.75)
            assert_accurate(self.case, inputs, place.backend, scalar=-2.5, **options)

    def test_a_large_ragged_input_is_accurate(self, place: Any) -> None:
        inputs = self.case.inputs((5, 531) if place.interpreted else (33, 4099), torch.float32, place.device)
        assert_accurate(self.case, inputs, place.backend, **self.case.options("sum"))

    def test_gradcheck(self, place: Any) -> None:
        inputs = self.case.inputs((2, 3), torch.float64, place.device)
        for reduction in self.case.reductions:
            options = self.case.options(reduction, weight=0.5)

            def function(*tensors: torch.Tensor, options: Any = options) -> Any:
                return self.case.fused(*tensors, *inputs.constants, backend=place.backend, **options)

            # The fast mode differentiates along one random direction, not element by element.
            assert torch.autograd.gradcheck(function, leaves(inputs.tensors), fast_mode=place.interpreted)

    # Strides.

    @pytest.mark.parametrize("shape", [(6, 20), (3, 2, 4, 4)], ids=str)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    def test_strides_do_not_matter(self, place: Any, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        if place.interpreted and dtype != torch.float32:
            pytest.skip("the interpreter takes every layout in one type")
        inputs = self.case.inputs(place.affordable(shape), dtype, place.device)
        options = {"backend": place.backend, **self.case.options()}
        expected = self.case.fused(*inputs.tensors, *inputs.constants, **options)
        expected_gradients = value_and_grad(self.case.fused, inputs, **options)[1]
        for index, tensor in enumerate((*inputs.tensors, *inputs.constants)):
            for name, view in support.layouts(tensor):
                assert torch.equal(view, tensor), name
                arguments = [*inputs.tensors, *inputs.constants]
                arguments[index] = view.detach()
                differentiable = arguments[: len(inputs.tensors)]
                for argument in differentiable:
                    argument.requires_grad_()
                outputs = self.case.fused(*arguments, **options)
                assert_close(outputs, expected)
                gradients = torch.autograd.grad(outputs, differentiable, cotangents(outputs))
                assert_close(gradients, expected_gradients)
                for argument in differentiable:
                    argument.requires_grad_(False)

    def test_expanded_rows_and_elements(self, place: Any) -> None:
        for source, shape in (((1, 20), (6, 20)), ((6, 1), (6, 20)), ((1, 1), (6, 20))):
            inputs = self.case.inputs(source, torch.float32, place.device)
            dense = inputs.map(lambda tensor, shape=shape: tensor.expand(shape).contiguous())
            options = {"backend": place.backend, **self.case.options("sum")}
            expected, expected_gradients = value_and_grad(self.case.fused, dense, **options)
            tensors = leaves(inputs.tensors)
            outputs = self.case.fused(
                *(tensor.expand(shape) for tensor in tensors),
                *(tensor.expand(shape) for tensor in inputs.constants),
                **options,
            )
            assert_close(outputs, expected)
            gradients = torch.autograd.grad(outputs, tensors, cotangents(outputs))
            summed = tuple(gradient.sum_to_size(source) for gradient in expected_gradients)
            assert_close(gradients, summed, factor=2)

    def test_incoming_gradients_may_have_any_strides(self, place: Any) -> None:
        if not self.case.per_sample:
            pytest.skip("a statistic of the batch has nothing for each row")
        inputs = self.case.inputs(place.affordable((6, 20)), torch.float32, place.device)
        tensors = leaves(inputs.tensors)
        options = {"backend": place.backend, **self.case.options("none")}
        for index in range(len(self.case.fused(*tensors, *inputs.constants, **options))):
            output = self.case.fused(*tensors, *inputs.constants, **options)[index]
            one = torch.tensor(1.5, device=place.device)
            padded = torch.zeros(*output.shape, 2, device=place.device)
            padded[..., 0] = 1.5
            dense = torch.full_like(output, 1.5)
            expected = torch.autograd.grad(output, tensors, dense, retain_graph=True, allow_unused=True)
            for incoming in (one.expand(output.shape), padded[..., 0], dense.t().contiguous().t()):
                got = torch.autograd.grad(output, tensors, incoming, retain_graph=True, allow_unused=True)
                for g, e in zip(got, expected, strict=True):
                    assert (g is None) == (e is None)
                    assert g is None or torch.equal(g, e)

    def test_gradient_through_a_transposed_use(self, place: Any) -> None:
        if not self.case.per_sample:
            pytest.skip("a statistic of the batch has nothing for each row")
        inputs = self.case.inputs(place.affordable((6, 20)), torch.float32, place.device)
        for call, backend in ((self.case.fused, {"backend": place.backend}), (self.case.eager, {})):
            tensors = leaves(inputs.tensors)
            output = call(*tensors, *inputs.constants, **backend, **self.case.options("none"))[0]
            factor = torch.linspace(-1, 1, output.numel(), device=place.device).reshape(output.t().shape)
            (output.t() * factor).sum().backward()
            result = tuple(tensor.grad for tensor in tensors)
            if call is self.case.fused:
                actual = result
        assert_close(actual, result)

    # Autograd.

    def test_a_second_backward_gives_the_same_and_leaves_the_first_alone(self, place: Any) -> None:
        inputs = self.case.inputs(place.affordable((6, 20)), torch.float32, place.device)
        for reduction in self.case.reductions:
            for factors in ((1.0, 1.0), (3.0, 1.0), (1.0, 3.0), (3.0, -2.0)):
                tensors = leaves(inputs.tensors)
                options = self.case.options(reduction)
                outputs = self.case.fused(*tensors, *inputs.constants, backend=place.backend, **options)
                unit = value_and_grad(self.case.eager, inputs, **options)[1]
                incoming = cotangents(outputs)
                first = torch.autograd.grad(outputs, tensors, [factors[0] * g for g in incoming], retain_graph=True)
                kept = tuple(gradient.clone() for gradient in first)
                second = torch.autograd.grad(outputs, tensors, [factors[1] * g for g in incoming])
                assert_close(first, tuple(factors[0] * gradient for gradient in unit))
                assert_close(second, tuple(factors[1] * gradient for gradient in unit))
                assert_same_bits(first, kept)

    def test_gradients_accumulate(self, place: Any) -> None:
        inputs = self.case.inputs(place.affordable((6, 20)), torch.float32, place.device)
        tensors = leaves(inputs.tensors)
        once = value_and_grad(self.case.fused, inputs, backend=place.backend, **self.case.options())[1]
        for _ in range(3):
            outputs = self.case.fused(*tensors, *inputs.constants, backend=place.backend, **self.case.options())
            torch.autograd.backward(outputs, cotangents(outputs))
        assert_close(tuple(tensor.grad for tensor in tensors), tuple(3 * gradient for gradient in once))

    def test_only_the_gradients_asked_for_are_given(self, place: Any) -> None:
        inputs = self.case.inputs(place.affordable((6, 20)), torch.float32, place.device)
        expected = value_and_grad(self.case.fused, inputs, backend=place.backend, **self.case.options())[1]
        for index in range(len(inputs.tensors)):
            tensors = [tensor.clone() for tensor in inputs.tensors]
            tensors[index].requires_grad_()
            outputs = self.case.fused(*tensors, *inputs.constants, backend=place.backend, **self.case.options())
            torch.autograd.backward(outputs, cotangents(outputs))
            assert_close((tensors[index].grad,), (expected[index],))
            assert all(tensor.grad is None for other, tensor in enumerate(tensors) if other != index)

    def test_no_graph_is_recorded_where_none_is_wanted(self, place: Any) -> None:
        inputs = self.case.inputs(place.affordable((6, 20)), torch.float32, place.device)
        arguments = {"backend": place.backend, **self.case.options()}
        expected = self.case.fused(*leaves(inputs.tensors), *inputs.constants, **arguments)
        with torch.no_grad():
            outputs = self.case.fused(*leaves(inputs.tensors), *inputs.constants, **arguments)
        assert all(output.requires_grad for output in expected)
        assert not any(output.requires_grad for output in outputs)
        assert_same_bits(outputs, tuple(output.detach() for output in expected))

    def test_inputs_are_never_modified(self, place: Any) -> None:
        inputs = self.case.inputs(place.affordable((6, 20)), torch.float32, place.device)
        before = inputs.map(torch.clone)
        tensors = tuple(tensor.requires_grad_() for tensor in inputs.tensors)
        for reduction in self.case.reductions:
            outputs = self.case.fused(
                *tensors, *inputs.constants, backend=place.backend, **self.case.options(reduction)
            )
            incoming = cotangents(outputs, 3.0)
            copies = tuple(gradient.clone() for gradient in incoming)
            torch.autograd.grad(outputs, tensors, incoming)
            assert_same_bits((*tensors, *inputs.constants, *incoming), (*before.tensors, *before.constants, *copies))

    def test_double_backward_is_right_or_an_error_and_never_silently_zero(self, place: Any) -> None:
        inputs = self.case.inputs((3, 5), torch.float64, place.device)
        for reduction in self.case.reductions:
            options = {"backend": place.backend, **self.case.options(reduction)}

            def function(*tensors: torch.Tensor, options: Any = options) -> Any:
                return self.case.fused(*tensors, *inputs.constants, **options)

            tensors = leaves(inputs.tensors)
            if place.backend == "reference":
                assert torch.autograd.gradgradcheck(function, tensors)
                continue
            outputs = function(*tensors)
            gradients = torch.autograd.grad(outputs, tensors, cotangents(outputs), create_graph=True)
            # A gradient penalty beside a term that is differentiable by itself: nothing else would raise here.
            penalty = sum(gradient.square().sum() for gradient in gradients) + sum(t.sum() for t in tensors)
            with pytest.raises(RuntimeError, match=r"cannot be differentiated twice: use backend='reference'"):
                penalty.backward()

    def test_checkpointing_gives_the_same_gradients(self, place: Any) -> None:
        inputs = self.case.inputs(place.affordable((6, 20)), torch.float32, place.device)
        options = {"backend": place.backend, **self.case.options()}
        expected = value_and_grad(self.case.fused, inputs, **options)

        def function(*arguments: torch.Tensor, **keywords: Any) -> Any:
            return checkpoint(self.case.fused, *arguments, use_reentrant=False, **keywords)

        actual = value_and_grad(function, inputs, **options)
        assert_same_bits((*actual[0], *actual[1]), (*expected[0], *expected[1]))

    # Determinism and properties. (@given stands inside: the place decides the number of examples.)

    def test_the_same_call_gives_the_same_bits(self, place: Any) -> None:
        inputs = self.case.inputs((2, 331) if place.interpreted else (65, 4099), torch.float32, place.device)
        threads = torch.get_num_threads()
        try:
            for reduction in self.case.reductions[:1] if place.interpreted else self.case.reductions:
                options = {"backend": place.backend, **self.case.options(reduction)}
                results = []
                for count in (1, 1, 2) if place.backend == "native" else (threads, threads):
                    torch.set_num_threads(count)
                    outputs, gradients = value_and_grad(self.case.fused, inputs, **options)
                    results.append((*outputs, *gradients))
                for other in results[1:]:
                    assert_same_bits(other, results[0])
        finally:
            torch.set_num_threads(threads)

    def test_rows_are_independent(self, place: Any) -> None:
        if not self.case.per_sample:
            pytest.skip("a statistic of the batch has nothing for each row")

        @given(shape=shapes, seed=seeds)
        def check(shape: tuple[int, ...], seed: int) -> None:
            generator = torch.Generator().manual_seed(seed)
            inputs = self.case.make(shape, torch.float32, generator).to(place.device)
            order = torch.randperm(shape[0], generator=generator).to(place.device)
            options = {"backend": place.backend, **self.case.options("none")}
            plain = self.case.fused(*inputs.tensors, *inputs.constants, **options)
            shuffled = inputs.map(lambda tensor: tensor[order])
            permuted = self.case.fused(*shuffled.tensors, *shuffled.constants, **options)
            assert_close(permuted, tuple(output[order] for output in plain))

        check()
