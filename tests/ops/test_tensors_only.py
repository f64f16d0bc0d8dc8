"""Arrays and lists in place of tensors are refused by the argument's name, with the remedy, by every operator."""

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
    ops.discretized_logistic_mixture_nll: ({"parameters": F(2, 3, 5), "target": GREY[:, :1]}, {"mixtures": 1}),
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
