"""What is no tensor or no number is refused by the argument's name, by every operator."""

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from fastvae import ops

F = torch.zeros
PICTURES, GREY = F(2, 3), F(2, 3, dtype=torch.uint8)
OF_TENSORS: dict[Callable[..., Any], tuple[dict[str, torch.Tensor], dict[str, Any]]] = {
    ops.bernoulli_nll: ({"logits": PICTURES, "target": PICTURES}, {}),
    ops.continuous_bernoulli_nll: ({"logits": PICTURES, "target": PICTURES}, {}),
    ops.gaussian_nll: ({"mean": PICTURES, "target": PICTURES}, {}),
    ops.gaussian_logvar_nll: ({"mean": PICTURES, "logvar": PICTURES, "target": PICTURES}, {}),
    ops.optimal_gaussian_nll: ({"mean": PICTURES, "target": PICTURES}, {}),
    ops.laplace_nll: ({"location": PICTURES, "target": PICTURES}, {}),
    ops.categorical_nll: ({"logits": F(2, 4, 3), "target": GREY}, {}),
    ops.discretized_logistic_nll: ({"mean": PICTURES, "log_scale": PICTURES, "target": GREY}, {}),
    ops.discretized_logistic_mixture_nll: ({"parameters": F(2, 3), "target": GREY[:, :1]}, {"mixtures": 1}),
    ops.linear_bernoulli_nll: ({"hidden": F(2, 5), "weight": F(3, 5), "bias": F(3), "target": PICTURES}, {}),
    ops.linear_gaussian_nll: ({"hidden": F(2, 5), "weight": F(3, 5), "bias": F(3), "target": PICTURES}, {}),
    ops.reparameterize: ({"mu": PICTURES, "logvar": PICTURES}, {}),
    ops.reparameterize_kl: ({"mu": PICTURES, "logvar": PICTURES}, {}),
    ops.reparameterize_log_ratio: ({"mu": PICTURES, "logvar": PICTURES}, {"samples": 2}),
    ops.gaussian_kl: ({"mu": PICTURES, "logvar": PICTURES}, {}),
    ops.capacity_kl: ({"mu": PICTURES, "logvar": PICTURES}, {"capacity": 1.0}),
    ops.free_bits_kl: ({"mu": PICTURES, "logvar": PICTURES}, {"free_bits": 1.0}),
    ops.gaussian_prior_kl: (dict.fromkeys(("mu", "logvar", "prior_mu", "prior_logvar"), PICTURES), {}),
    ops.importance_weighted_nll: ({"nll": PICTURES, "log_ratio": PICTURES}, {}),
}
CONVERTED = [(op, name) for op, (tensors, _) in OF_TENSORS.items() for name in tensors]


@pytest.mark.parametrize(("op", "name"), CONVERTED, ids=[f"{op.__name__}-{name}" for op, name in CONVERTED])
def test_arrays_and_lists_are_refused_by_name(op: Any, name: str) -> None:
    tensors, keywords = OF_TENSORS[op]
    for value, kind in ((tensors[name].numpy(), "numpy.ndarray"), (tensors[name].tolist(), "list")):
        message = f"{name} must be a tensor, not {kind}: convert it with torch.as_tensor({name})"
        with pytest.raises(TypeError, match=re.escape(message)):
            op(**{**tensors, name: value}, **keywords)


def test_every_operator_of_tensors_is_asked() -> None:
    losses = {getattr(ops, name) for name in dir(ops) if name.endswith(("_nll", "_kl")) or name.startswith("rep")}
    assert losses == set(OF_TENSORS)


def named(op: Any) -> dict[str, Any]:
    tensors, keywords = OF_TENSORS[op]
    return {**tensors, **keywords}


@pytest.mark.parametrize("op", OF_TENSORS, ids=lambda op: op.__name__)
def test_what_is_no_number_is_refused_by_name(op: Any) -> None:
    weight = "loss_weight" if op.__name__.startswith("linear") else "weight"
    options = inspect.signature(op).parameters
    if weight in options:
        for value, kind in ((None, "NoneType"), ([1.0], "list"), ("1", "str")):
            with pytest.raises(TypeError, match=f"{weight} must be a number, not {kind}"):
                op(**named(op), **{weight: value})
    if "reduction" in options:
        with pytest.raises(ValueError, match=r"reduction must be .*, not \[\]"):
            op(**named(op), reduction=[])
    if "clamp" in options:
        for clamp in (3.0, "ab", (1.0,)):
            with pytest.raises(TypeError, match=r"clamp(\[0\])? must be"):
                op(**named(op), clamp=clamp)


CONSTANTS = [(ops.gaussian_nll, "variance"), (ops.linear_gaussian_nll, "variance"), (ops.laplace_nll, "scale")]


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize(("op", "name"), [*CONSTANTS, (ops.free_bits_kl, "free_bits"), (ops.capacity_kl, "capacity")])
def test_constants_that_require_a_gradient_are_refused(op: Any, name: str, backend: str) -> None:
    """They would get none, in silence."""
    value = torch.tensor(0.5, requires_grad=True)
    with pytest.raises(ValueError, match=f"{name} requires a gradient, but is a constant .*: pass {name}.detach()"):
        op(**{**named(op), name: value}, backend=backend)
    op(**{**named(op), name: value.detach().item()}, backend=backend)


@pytest.mark.parametrize(("op", "name"), CONSTANTS)
def test_constants_are_positive_numbers(op: Any, name: str) -> None:
    for value in (None, "1", torch.ones(2)):
        with pytest.raises(TypeError, match=f"{name} must be a number, not "):
            op(**{**named(op), name: value})
    with pytest.raises(ValueError, match=f"{name} must be a positive finite number, not 0"):
        op(**{**named(op), name: 0})


def test_sparse_tensors_are_refused() -> None:
    sparse = torch.eye(3).to_sparse()
    with pytest.raises(TypeError, match=r"mu must be dense, not torch.sparse_coo: convert it with .to_dense()"):
        ops.gaussian_kl(sparse, sparse)
    with pytest.raises(TypeError, match=r"target must be dense, not torch.sparse_coo"):
        ops.bernoulli_nll(torch.eye(3), sparse)
