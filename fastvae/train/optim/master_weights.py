"""Master weights in fp32 or fp64, and the low-precision copies that a step computes with."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fastvae.models import VAE
from fastvae.models.layers import MATMUL_LAYERS


class MasterWeights:
    """All weights of a model, and a copy of the model that computes in ``dtype``; see :class:`.weights.Weights`.

    Autocast casts a weight at each use. Here each weight is cast once a step, by :meth:`refresh_copies` or by the
    optimiser itself. The computing model shares all other parameters, and all buffers, with the model. Without a
    ``dtype`` it is the model.

    Args:
        model: the model to train.
        dtype: bf16 or fp16, or None.
        in_fp32: the name of the module whose weights are not copied, which :func:`.output_layer.sharp_output` gives.
    """

    grads_are_reduced = False

    def __init__(self, model: VAE, dtype: torch.dtype | None, in_fp32: str | None = None) -> None:
        self.model = model
        self.compute_model = model if dtype is None else _low_precision_copy(model, dtype, in_fp32)
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        computing = [parameter for parameter in self.compute_model.parameters() if parameter.requires_grad]
        pairs = zip(self.parameters, computing, strict=True)
        self.low_precision_copies: Mapping[Tensor, Tensor] = {
            master: low.detach() for master, low in pairs if master is not low
        }
        self.refresh_copies()

    @torch.no_grad()
    def refresh_copies(self) -> None:
        """Cast the weights into their low-precision copies."""
        copies = self.low_precision_copies
        if copies:
            torch._foreach_copy_(list(copies.values()), list(copies))

    def grad_norm(self, buffer: Tensor, gradients: list[Tensor]) -> Tensor:  # noqa: ARG002 -- FSDP needs them apart
        """Return the Euclidean norm () of the gradients."""
        norm: Tensor = torch.linalg.vector_norm(buffer)
        return norm

    def state_dict(self) -> dict[str, Tensor]:
        """Return the model's state dict, not copied."""
        return self.model.state_dict()

    def load_state_dict(self, weights: Mapping[str, Tensor]) -> None:
        """Load the state dict of such a model."""
        self.model.load_state_dict(weights)
        self.refresh_copies()

    def full_optim_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return the optimiser's state as it is: it is that of whole weights."""
        return state

    def shard_optim_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return the optimiser's state as it is: this rank trains whole weights."""
        return state


def _low_precision_copy(model: VAE, dtype: torch.dtype, in_fp32: str | None) -> VAE:
    """Copy a model with the weights of its matmuls and convolutions cast, and everything else shared."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    wide = set() if in_fp32 is None else {id(parameter) for parameter in model.get_submodule(in_fp32).parameters()}
    for parameter in _of_matmuls(model):
        if id(parameter) not in wide:
            shared.pop(id(parameter), None)
    # deepcopy shares what is in its memo; it copies the rest, and a tensor that two layers share once.
    low = copy.deepcopy(model, dict(shared))
    for parameter in _of_matmuls(low):
        if id(parameter) not in wide:
            parameter.data = parameter.data.to(dtype)
    return low


def _of_matmuls(model: VAE) -> Iterator[nn.Parameter]:
    for module in model.modules():
        if isinstance(module, MATMUL_LAYERS):
            yield from module.parameters(recurse=False)
