"""The interface between a training step and the weights that it trains."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fastvae.models import VAE


class Weights(Protocol):
    """The weights of a run as one process holds them.

    :class:`fastvae.train.optim.master_weights.MasterWeights` holds all of them, which is data parallelism (DDP);
    :class:`fastvae.train.distributed.fsdp.ShardedWeights` holds a shard of each (FSDP).

    model: the model whose weights these are. With FSDP its parameters are DTensors.
    parameters: what the optimiser updates, in fp32 or fp64: whole parameters, or this rank's shards.
    low_precision_copies: the bf16 or fp16 copy of each parameter that is kept in one; FSDP keeps none, as it casts
        while it gathers.
    grads_are_reduced: whether the gradients of a backward pass are summed over the ranks already.
    """

    model: VAE
    parameters: list[nn.Parameter]
    low_precision_copies: Mapping[Tensor, Tensor]
    grads_are_reduced: bool

    def refresh_copies(self) -> None:
        """Cast the updated parameters into their low-precision copies."""

    def grad_norm(self, buffer: Tensor, gradients: list[Tensor]) -> Tensor:
        """Return the Euclidean norm () of the gradients of all ranks.

        Args:
            buffer: (n,) the gradients in one piece.
            gradients: views of it, one for each of ``parameters``.
        """

    def state_dict(self) -> dict[str, Tensor]:
        """Return the full state dict of the model. Collective.

        DDP's is not copied: training changes it. FSDP's is on the CPU of rank 0, and empty on other ranks.
        """

    def load_state_dict(self, weights: Mapping[str, Tensor]) -> None:
        """Load the full state dict of such a model; every rank has all of it."""

    def full_optim_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return an optimiser's ``state_dict`` with whole tensors, as a checkpoint saves it. Collective."""

    def shard_optim_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return this rank's ``state_dict`` from a full one."""


def compute_dtypes(weights: Weights) -> set[torch.dtype]:
    """Return the types of the gradients that one backward pass gives."""
    copies = weights.low_precision_copies
    return {copies.get(parameter, parameter).dtype for parameter in weights.parameters}
