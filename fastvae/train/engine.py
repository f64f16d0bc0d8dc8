"""One training step and one evaluation pass: the part that has to be fast."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..data import Batch, Loader
from ..errors import InputError
from ..models import VAE, Preset
from ..ops import Noise
from .checkpoint import Checkpoint, flatten_optimizer, unflatten_optimizer
from .config import Precision, TrainConfig
from .objective import EVAL_STREAM, TRAIN_STREAM, Objective
from .world import World

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Terms(NamedTuple):
    """The mean negative ELBO of some images and its terms, in nats per sample."""

    loss: float
    nll: float
    kl: float

    @classmethod
    def of(cls, sums: Tensor, images: int, beta: float) -> "Terms":
        """From the sums ``[nll, kl]`` over a number of images. Waits for the device."""
        nll, kl = (value / max(images, 1) for value in sums.tolist())
        return cls(nll + beta * kl, nll, kl)


class Engine:
    """A model, its optimiser and its noise, and how they take a step on one device of a :class:`World`."""

    def __init__(self, model: VAE, config: TrainConfig, recipe: Preset, world: World) -> None:
        dtype = torch.float64 if config.precision == "fp64" else torch.float32
        self.model = model.to(world.device, dtype)
        self.world = world
        self.beta = config.beta
        self.seed = config.seed
        self.noise = Noise(config.seed, 0, device=world.device)
        self.sums = torch.zeros(2, dtype=torch.float64, device=world.device)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=config.precision == "fp16")
        assert config.lr is not None
        self.optimizer = _optimizer(recipe, self.model, config.lr)
        self._autocast = _autocast(config.precision, world.device)
        self._objective = Objective(self.model, config.beta, config.backend)
        self._step_objective: Callable[..., tuple[Tensor, Tensor]] = self._parallel(config.compile)
        # DDP averages over the processes, the loss is a sum over them.
        self._weight = recipe.loss_weight * world.size
        self._batchmean = recipe.reduction == "batchmean"

    def _parallel(self, compiled: bool) -> Callable[..., Any]:
        objective: nn.Module = self._objective
        if self.world.size > 1:
            devices = [self.world.device] if self.world.device.type == "cuda" else None
            objective = DistributedDataParallel(objective, device_ids=devices, gradient_as_bucket_view=True)
        # dynamic=False: the one smaller batch that ends an epoch gets a graph of its own.
        return torch.compile(objective, dynamic=False) if compiled else objective

    def train_step(self, batch: Batch) -> None:
        """Take one step. Adds the batch's sums to ``sums`` and moves the noise on; waits for nothing."""
        weight = self._weight / batch.rows if self._batchmean else self._weight
        with self._autocast():
            loss, sums = self._step_objective(batch.images, self.noise.state, batch.row_offset, TRAIN_STREAM, weight)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.sums += sums
        self.noise.advance()

    @torch.no_grad()
    def evaluate(self, loader: Loader, epoch: int) -> Terms:
        """The ELBO over a loader's images, with one sample of z each; the same noise for any batch or world size."""
        noise = Noise(self.seed, epoch, device=self.world.device)
        sums = torch.zeros(2, dtype=torch.float64, device=self.world.device)
        images = 0
        self.model.eval()
        for batch in loader:
            with self._autocast():
                _, terms = self._objective(batch.images, noise.state, images + batch.row_offset, EVAL_STREAM, 1.0)
            sums += terms
            images += batch.rows
        self.model.train()
        self.world.sum(sums)
        return Terms.of(sums, images, self.beta)

    def state(self) -> Checkpoint:
        """Weights, optimiser, loss scale and noise key, as a checkpoint keeps them."""
        optimizer, optimizer_values = flatten_optimizer(self.optimizer.state_dict())
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"optimizer.{name}": tensor for name, tensor in optimizer.items()}
        return Checkpoint(
            {**tensors, "noise": self.noise.state},
            {"optimizer": optimizer_values, "scaler": self.scaler.state_dict()},
        )

    def load_state(self, saved: Checkpoint) -> None:
        """Take over what :meth:`state` gave. Raises InputError for a checkpoint of another network."""
        load_weights(self.model, saved)
        self.optimizer.load_state_dict(unflatten_optimizer(saved.part("optimizer"), saved.values["optimizer"]))
        self.scaler.load_state_dict(saved.values["scaler"])
        self.noise.state.copy_(saved.tensors["noise"])


def load_weights(model: VAE, saved: Checkpoint) -> None:
    """Copy a checkpoint's weights into a model. Raises InputError naming a tensor that does not fit."""
    weights, own = saved.part("model"), model.state_dict()
    for name in own.keys() | weights.keys():
        has, wants = weights.get(name), own.get(name)
        if has is None or wants is None or has.shape != wants.shape:
            shapes = [None if tensor is None else tuple(tensor.shape) for tensor in (has, wants)]
            raise InputError(
                f"the checkpoint is of another network: {name} is {shapes[0]} there and {shapes[1]} here: "
                "use the settings that it was trained with"
            )
    model.load_state_dict(weights)


def _optimizer(recipe: Preset, model: VAE, lr: float) -> torch.optim.Optimizer:
    options: dict[str, Any] = dict(recipe.optimizer_options)
    if recipe.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), lr=lr, fused=True, **options)
    return torch.optim.RMSprop(model.parameters(), lr=lr, foreach=True, **options)


def _autocast(precision: Precision, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    if precision in _AUTOCAST:
        return lambda: torch.autocast(device.type, _AUTOCAST[precision])
    return nullcontext
