"""Master weights in fp32 or fp64, and the low-precision copies that a step computes with."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fastvae.models import VAE
from fastvae.models.layers import MATMUL_LAYERS


class MasterWeights:
    """All weights of a model, and copies of those of its matmuls in ``dtype``; see :class:`.weights.Weights`.

    Autocast casts a weight at each use. Here each weight is cast once a step, by :meth:`refresh_copies` or by the
    optimiser itself. Without a ``dtype`` there are no copies.

    Args:
        model: the model to train.
        dtype: bf16 or fp16, or None.
        in_fp32: the name of the module whose weights are not copied, which :func:`.output_layer.sharp_output` gives.
    """

    grads_are_reduced = False

    def __init__(self, model: VAE, dtype: torch.dtype | None, in_fp32: str | None = None) -> None:
        self.model = model
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.low_precision_copies: Mapping[Tensor, Tensor] = {} if dtype is None else _copies(model, dtype, in_fp32)

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


def _copies(model: VAE, dtype: torch.dtype, in_fp32: str | None) -> dict[Tensor, Tensor]:
    """Copy the weights of matmuls and convolutions; a weight that two layers share is copied once."""
    wide = set() if in_fp32 is None else set(model.get_submodule(in_fp32).parameters())
    return {
        parameter: parameter.detach().to(dtype).requires_grad_(parameter.requires_grad)
        for module in model.modules()
        if isinstance(module, MATMUL_LAYERS)
        for parameter in module.parameters(recurse=False)
        if parameter not in wide
    }
