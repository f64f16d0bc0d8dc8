"""Fully sharded weights (FSDP): each rank keeps a shard, for models that one device cannot hold."""

from collections import Counter
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from fastvae.models import VAE
from fastvae.models.layers import MATMUL_LAYERS

from .world import World


class ShardedWeights:
    """A model sharded in place by torch's ``fully_shard``; ``parameters`` are this rank's shards.

    It satisfies the interface ``Weights`` of :mod:`fastvae.train.optim.weights`. A layer with a matmul is gathered for
    its own forward and backward alone, in ``low`` precision if that is given; all other parameters are gathered for
    the whole pass. The module named ``in_fp32``, if there is one, is gathered as it is. Gradients come back
    summed over the ranks, in the type of the weights; ranks exchange them in the type ``sent``.
    """

    grads_are_reduced = True
    low_precision_copies: Mapping[Tensor, Tensor] = MappingProxyType({})  # gathering casts

    def __init__(
        self,
        model: VAE,
        world: World,
        low: torch.dtype | None,
        sent: torch.dtype | None,
        in_fp32: str | None = None,
    ) -> None:
        self.model = model
        self._world = world
        self._sent = sent
        self._wide = next(model.parameters()).dtype
        self._mesh = init_device_mesh(world.device.type, (world.size,))
        users = Counter(id(parameter) for module in model.modules() for parameter in module.parameters(recurse=False))
        wide = set() if in_fp32 is None else {*model.get_submodule(in_fp32).modules()}
        for layer in [module for module in model.modules() if isinstance(module, MATMUL_LAYERS)]:
            if all(users[id(parameter)] == 1 for parameter in layer.parameters()):  # shared ones belong to the model
                self._shard(layer, None if layer in wide else low)
        self._shard(model, None)
        for method in ("encode", "decode"):  # objectives call these before anything else
            register_fsdp_forward_method(model, method)
        self._wholes = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.parameters = [nn.Parameter(_local(whole.detach())) for whole in self._wholes]

    def _shard(self, module: nn.Module, low: torch.dtype | None) -> None:
        module.to(self._world.device)  # layer by layer: all of them at once may not fit
        own = [tensor for tensor in (*module.parameters(), *module.buffers()) if not isinstance(tensor, DTensor)]
        self._world.broadcast(own)
        policy = MixedPrecisionPolicy(low, self._sent or self._wide, cast_forward_inputs=False)
        scalars = {parameter for parameter in module.parameters() if parameter.ndim == 0}
        sharded = fully_shard(module, mesh=self._mesh, mp_policy=policy, ignored_params=scalars)
        sharded.set_gradient_divide_factor(1.0)  # the loss is divided by the global batch already
        sharded.set_force_sum_reduction_for_comms(True)  # gloo has no reduction with a factor, even a factor of 1

    def refresh_copies(self) -> None:
        """Do nothing: no low-precision copies are kept."""

    def take_gradients(self) -> list[Tensor]:
        """Return this rank's shard of each gradient, and clear the model's gradients."""
        gradients = []
        for whole, own in zip(self._wholes, self.parameters, strict=True):
            gradient = torch.zeros_like(own) if whole.grad is None else _local(whole.grad)
            if not isinstance(whole, DTensor):
                self._world.all_reduce(gradient)
            gradients.append(gradient)
            whole.grad = None
        return gradients

    def grad_norm(self, buffer: Tensor, gradients: list[Tensor]) -> Tensor:  # noqa: ARG002 -- some are not sharded
        """Return the Euclidean norm () of the full gradients, given this rank's shards."""
        squares = [torch.linalg.vector_norm(gradient).square() for gradient in gradients]
        sharded = [isinstance(whole, DTensor) for whole in self._wholes]
        total = torch.stack([square for square, is_shard in zip(squares, sharded, strict=True) if is_shard]).sum()
        self._world.all_reduce(total)
        return sum((square for square, is_shard in zip(squares, sharded, strict=True) if not is_shard), total).sqrt()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the full state dict: on the CPU of rank 0, and empty on other ranks. Collective."""
        # By hand: torch's own functions, set_model_state_dict for example, refuse a weight that has two names.
        wholes = ((name, _full(tensor)) for name, tensor in self.model.state_dict().items())
        return {name: whole.cpu() for name, whole in wholes if self._world.is_rank_0}

    @torch.no_grad()
    def load_state_dict(self, weights: Mapping[str, Tensor]) -> None:
        """Load this rank's shards from a full state dict."""
        for name, own in self.model.state_dict().items():
            _local(own).copy_(_shard_like(own, weights[name]))

    def full_optim_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return an optimiser's ``state_dict`` with full tensors on rank 0, and with shards elsewhere. Collective."""
        return _map_tensors(state, self._gather)

    def shard_optim_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return this rank's ``state_dict`` from a full one."""
        return _map_tensors(state, self._shard_of)

    def _gather(self, index: int, shard: Tensor) -> Tensor:
        like = self._wholes[index]
        if not isinstance(like, DTensor) or shard.shape != self.parameters[index].shape:
            return shard
        full = DTensor.from_local(
            shard, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
        ).full_tensor()
        return full.cpu() if self._world.is_rank_0 else shard

    def _shard_of(self, index: int, full: Tensor) -> Tensor:
        like = self._wholes[index]
        return _shard_like(like, full) if full.shape == like.shape else full


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _full(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _shard_like(like: Tensor, whole: Tensor) -> Tensor:
    """Return this rank's shard of a tensor that every rank has in full; nothing is sent."""
    if not isinstance(like, DTensor):
        return whole
    return _local(distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None))


def _map_tensors(state: dict[str, Any], change: Callable[[int, Tensor], Tensor]) -> dict[str, Any]:
    """Apply a function of (parameter's index, tensor) to each tensor of an optimiser's ``state_dict``."""
    entries = {
        index: {key: change(index, value) if isinstance(value, Tensor) else value for key, value in entry.items()}
        for index, entry in state["state"].items()
    }
    return {**state, "state": entries}
