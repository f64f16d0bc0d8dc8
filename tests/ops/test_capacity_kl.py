import re
from typing import Any

import pytest
import torch

from fastvae import ops, reference

from .cases import GAUSSIAN_KL
from .support import assert_close, leaves

CAPACITIES = (0.0, 3.0, 500.0)


def both(place: Any, capacity: Any, shape: tuple[int, ...] = (6, 20), **options: Any) -> list[tuple[torch.Tensor, ...]]:
    """Value and gradients, of the backend and of the reference in fp64."""
    results = []
    for kind in (torch.float32, torch.float64):
        tensors = leaves(GAUSSIAN_KL.inputs(shape, torch.float32, place.device).to(kind).tensors)
        if kind == torch.float32:
            loss = ops.capacity_kl(*tensors, capacity, backend=place.backend, **options)
        else:
            loss = reference.capacity_kl(*tensors, capacity, **options)
        gradients = torch.autograd.grad(loss.sum(), tensors)
        results.append(tuple(value.detach().float() for value in (loss, *gradients)))
    return results


@pytest.mark.parametrize("weight", [1.0, 1000.0, -2.0])
@pytest.mark.parametrize("capacity", CAPACITIES)
@pytest.mark.parametrize(
    ("per_sample", "reduction"),
    [(False, "batchmean"), (False, "sum"), (True, "batchmean"), (True, "sum"), (True, "none")],
)
def test_accuracy(place: Any, per_sample: bool, reduction: str, capacity: float, weight: float) -> None:
    if place.interpreted and weight != -2.0:
        pytest.skip("one weight is enough for the interpreter: it is gaussian_kl's kernel")
    options = {"per_sample": per_sample, "reduction": reduction}
    expected = both(place, capacity, weight=weight, **options)
    assert_close(*expected)
    on_device = [torch.tensor(value, device=place.device) for value in (capacity, weight)]
    assert_close(both(place, on_device[0], weight=on_device[1], **options)[0], expected[1])


def test_by_hand_on_either_side_and_at_the_capacity(place: Any) -> None:
    for capacity, value, slope in ((1.0, 1.5, 1.0), (4.0, 1.5, -1.0), (2.5, 0.0, 0.0)):
        for per_sample in (False, True):
            mu = torch.tensor([[1.0, 2.0]], device=place.device).requires_grad_()  # KL 2.5
            loss = ops.capacity_kl(mu, torch.zeros_like(mu), capacity, per_sample=per_sample, backend=place.backend)
            (gradient,) = torch.autograd.grad(loss, mu)
            assert loss.item() == value
            assert gradient.tolist() == [[slope, 2 * slope]]


def test_the_mean_cancels_and_the_samples_do_not(place: Any) -> None:
    mu = torch.tensor([[0.0], [2.0]], device=place.device)  # KL 0 and 2
    logvar = torch.zeros_like(mu)
    assert ops.capacity_kl(mu, logvar, 1.0, backend=place.backend).item() == 0
    assert ops.capacity_kl(mu, logvar, 1.0, per_sample=True, backend=place.backend).item() == 1


def test_a_capacity_on_the_device_is_read_at_every_call_of_one_graph(place: Any) -> None:
    if place.interpreted:
        pytest.skip("the interpreter runs kernels in Python: nothing to compile")
    torch.compiler.reset()
    capacity = torch.tensor(1.0, device=place.device)
    mu = torch.tensor([[1.0, 2.0]], device=place.device)
    with torch._dynamo.config.patch(error_on_recompile=True):
        step = torch.compile(
            lambda mu: ops.capacity_kl(mu, mu * 0, capacity, backend=place.backend),
            fullgraph=True, backend="aot_eager",
        )  # fmt: skip
        for value, loss in ((1.0, 1.5), (2.0, 0.5), (5.0, 2.5)):
            capacity.fill_(value)
            assert step(mu).item() == loss


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"capacity": float("inf")}, "capacity must be a finite number of nats, not inf"),
        ({"capacity": float("nan")}, "capacity must be a finite number of nats, not nan"),
        ({"capacity": torch.zeros(1)}, "capacity has shape (1,), but must be a number or a 0-d tensor"),
        ({"capacity": torch.zeros((), requires_grad=True)}, "capacity requires a gradient, but is a constant"),
        ({"capacity": 1.0, "reduction": "none"}, "reduction='none' needs per_sample=True: the distance of a batch"),
        ({"capacity": 1.0, "reduction": "mean"}, "reduction must be 'batchmean', 'sum' or 'none', not 'mean'"),
    ],
)
def test_bad_arguments(backend: str, arguments: Any, message: str) -> None:
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=re.escape(message)):
        ops.capacity_kl(x, x, **arguments, backend=backend)
