"""Weights of which each process keeps a part: torch's ``fully_shard``, for models that no one device holds."""

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
    """A model cut up in place, in the role of :class:`WorkingWeights`: ``parameters`` are this process' parts.

    Each layer with a matrix product is put together for its forward and its backward alone, in ``low`` precision
    where there is one; all else is, for the whole of them. Gradients come back summed over the processes, in the type
    of the weights, having been sent in ``sent``.
    """

    copies: Mapping[Tensor, Tensor] = MappingProxyType({})

    def __init__(self, model: VAE, world: World, low: torch.dtype | None, sent: torch.dtype | None) -> None:
        self.model = self.twin = model
        self._world, self._sent, self._wide = world, sent, next(model.parameters()).dtype
        self._mesh = init_device_mesh(world.device.type, (world.size,))
        users = Counter(id(parameter) for module in model.modules() for parameter in module.parameters(recurse=False))
        for layer in [module for module in model.modules() if isinstance(module, MATMUL_LAYERS)]:
            if all(users[id(parameter)] == 1 for parameter in layer.parameters()):  # what layers share stays with all
                self._cut(layer, low)
        self._cut(model, None)
        for method in ("encode", "decode"):  # what objectives call of a model, before all else
            register_fsdp_forward_method(model, method)
        self._wholes = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.parameters = [nn.Parameter(_part(whole.detach())) for whole in self._wholes]

    def _cut(self, module: nn.Module, low: torch.dtype | None) -> None:
        module.to(self._world.device)  # one layer at a time: all of them may not fit
        own = [tensor for tensor in (*module.parameters(), *module.buffers()) if not isinstance(tensor, DTensor)]
        self._world.broadcast(own)
        policy = MixedPrecisionPolicy(low, self._sent or self._wide, cast_forward_inputs=False)
        scalars = {parameter for parameter in module.parameters() if parameter.ndim == 0}
        cut = fully_shard(module, mesh=self._mesh, mp_policy=policy, ignored_params=scalars)
        cut.set_gradient_divide_factor(1.0)  # the loss has the factor of the whole batch
        cut.set_force_sum_reduction_for_comms(True)  # else even that is a factor, which gloo does not know

    def refresh(self) -> None:
        """Nothing is kept that would have to follow the weights."""

    def take_gradients(self) -> list[Tensor]:
        """The part of each gradient that is for this process; the model has none any more."""
        gradients = []
        for whole, own in zip(self._wholes, self.parameters, strict=True):
            gradient = torch.zeros_like(own) if whole.grad is None else _part(whole.grad)
            if not isinstance(whole, DTensor):
                self._world.all_reduce(gradient)
            gradients.append(gradient)
            whole.grad = None
        return gradients

    def norm(self, gradients: list[Tensor]) -> Tensor:
        """The Euclidean norm of all gradients, of which these are the parts of this process."""
        squares = [torch.linalg.vector_norm(gradient).square() for gradient in gradients]
        cut = [isinstance(whole, DTensor) for whole in self._wholes]
        total = torch.stack([square for square, is_cut in zip(squares, cut, strict=True) if is_cut]).sum()
        self._world.all_reduce(total)
        return sum((square for square, is_cut in zip(squares, cut, strict=True) if not is_cut), total).sqrt()

    def state_dict(self) -> dict[str, Tensor]:
        """The model's, whole: on the CPU of the main process, and empty in others. All have to ask."""
        # By hand: torch's set_model_state_dict, for one, refuses a weight that has two names.
        wholes = ((name, _whole(tensor)) for name, tensor in self.model.state_dict().items())
        return {name: whole.cpu() for name, whole in wholes if self._world.is_rank_0}

    @torch.no_grad()
    def load_state_dict(self, weights: Mapping[str, Tensor]) -> None:
        """Take this process' part of the weights of a whole model."""
        for name, own in self.model.state_dict().items():
            _part(own).copy_(_cut_as(own, weights[name]))

    def gathered(self, state: dict[str, Any]) -> dict[str, Any]:
        """An optimiser's ``state_dict``, in the main process with whole tensors in place of parts. All have to ask."""
        return _each(state, self._whole)

    def scattered(self, state: dict[str, Any]) -> dict[str, Any]:
        """The other way round."""
        return _each(state, self._part)

    def _whole(self, index: int, part: Tensor) -> Tensor:
        like = self._wholes[index]
        if not isinstance(like, DTensor) or part.shape != self.parameters[index].shape:
            return part
        shape, stride = like.shape, like.stride()
        cut = DTensor.from_local(part, like.device_mesh, like.placements, run_check=False, shape=shape, stride=stride)
        whole = _whole(cut)
        return whole.cpu() if self._world.is_rank_0 else part

    def _part(self, index: int, whole: Tensor) -> Tensor:
        like = self._wholes[index]
        return _cut_as(like, whole) if whole.shape == like.shape else whole


def _part(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _cut_as(like: Tensor, whole: Tensor) -> Tensor:
    """Of what all processes have whole, the part of this one; nothing is sent."""
    if not isinstance(like, DTensor):
        return whole
    return _part(distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None))


def _each(state: dict[str, Any], change: Callable[[int, Tensor], Tensor]) -> dict[str, Any]:
    """An optimiser's ``state_dict`` with each tensor changed, given the index of its parameter."""
    entries = {
        index: {key: change(index, value) if isinstance(value, Tensor) else value for key, value in entry.items()}
        for index, entry in state["state"].items()
    }
    return {**state, "state": entries}
