"""The trained tensors of an engine: what a checkpoint saves of it, and how it is loaded."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fastvae.ops.internal.all_finite import all_finite
from fastvae.train.distributed.world import World
from fastvae.train.optim.ema import EMA
from fastvae.train.optim.state_dict import FORM, check_state
from fastvae.train.optim.step_counter import StepCounter
from fastvae.train.optim.weights import Weights

from .checkpoint import Checkpoint, flatten_optimizer, unflatten_optimizer
from .load_weights import fitting, storable


@dataclass(frozen=True, eq=False)
class TrainState:
    """Weights, their moving average, optimiser, loss scale and step counter."""

    weights: Weights
    ema: EMA | None
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    counter: StepCounter

    def optimizer_tensors(self) -> Iterator[Tensor]:
        """Yield the tensors of the optimiser's state, which its first step may add to."""
        for state in self.optimizer.state.values():
            yield from (value for value in state.values() if isinstance(value, Tensor))

    def ema_tensors(self) -> Iterator[Tensor]:
        """Yield the averaged weights, if there are any."""
        if self.ema is not None:
            yield from self.ema.averages.values()

    def loss_scale(self) -> list[Tensor]:
        """Return the tensors of the loss scale, if there is one."""
        if not self.scaler.is_enabled():
            return []
        return [tensor for tensor in (self.scaler._scale, self.scaler._growth_tracker) if tensor is not None]

    def tensors(self) -> Iterator[Tensor]:
        """Yield every tensor that a step changes in place."""
        yield from self.weights.model.parameters()
        yield from self.weights.model.buffers()
        yield from self.weights.low_precision_copies.values()
        yield from self.ema_tensors()
        yield from self.optimizer_tensors()
        yield self.counter.state
        yield from self.loss_scale()

    def is_finite(self, world: World) -> bool:
        """Return whether all weights are finite. Synchronizes with the device. Collective.

        (A finite gradient can still overflow a weight if the learning rate is too large.)
        """
        tensors = [tensor.detach() for tensor in (*self.weights.parameters, *self.ema_tensors())]
        if world.device.type == "cpu":  # in one pass: at each save the training waits for this
            finite = all_finite(tensors)
        else:
            finite = bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())
        return not world.any(not finite)

    def named_weights(self) -> dict[str, Tensor]:
        """Return the weights and their average by their names in a checkpoint; not copied. Collective.

        With sharded weights, rank 0 alone gets them, in full.
        """
        tensors = {f"model.{name}": storable(tensor) for name, tensor in self.weights.state_dict().items()}
        if self.ema is not None:
            tensors |= {f"ema.{name}": tensor for name, tensor in self.ema.averages.items()}
        return tensors

    def to_checkpoint(self) -> Checkpoint:
        """Return everything as a checkpoint saves it; not copied. Collective."""
        optimizer, optimizer_values = flatten_optimizer(self.weights.full_optim_state(self.optimizer.state_dict()))
        tensors = self.named_weights()
        tensors |= {f"optimizer.{name}": tensor for name, tensor in optimizer.items()}
        tensors["noise"] = self.counter.state
        return Checkpoint(tensors, {"optimizer": optimizer_values, "scaler": self.scaler.state_dict()})

    def load(self, saved: Checkpoint) -> None:
        """Load what :meth:`to_checkpoint` gave. Raises InputError for a checkpoint of another network or optimiser."""
        self.weights.load_state_dict(fitting(self.weights.model, saved, average=False))
        if self.ema is not None:
            averaged = fitting(self.weights.model, saved, average=True)
            for name, average in self.ema.averages.items():
                average.copy_(averaged[name])
        full = unflatten_optimizer(saved.part("optimizer"), saved.values["optimizer"])
        state = self.weights.shard_optim_state(full)
        check_state(self.optimizer, state, saved.values.get("step", 0))
        for group, own in zip(state["param_groups"], self.optimizer.param_groups, strict=True):
            # The fused or foreach form is this device's, and the rate may be a tensor of the schedule's.
            group |= {key: own[key] for key in FORM if key in own}
        self.optimizer.load_state_dict(state)
        for parameter, values in self.optimizer.state.items():
            for key, value in values.items():  # files keep no memory format
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    values[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        self.scaler.load_state_dict(saved.values["scaler"])
        self.counter.state.copy_(saved.tensors["noise"])
