"""The loop that a model's owner would write in plain torch, on the batches and the noise of a run of the trainer."""

from collections.abc import Callable

import torch
from torch import Tensor

import fastvae
from fastvae.data import ResidentLoader
from fastvae.train.checkpoint.rng import seed_rng
from fastvae.train.distributed.world import World
from fastvae.train.step.loss import TRAIN_STREAM

Make = Callable[..., torch.optim.Optimizer]


def train_in_plain_torch(
    model: fastvae.VAE,
    images: Tensor,
    *,
    batch_size: int,
    epochs: int = 1,
    make: Make = torch.optim.Adam,
    lr: float = 1e-3,
) -> dict[str, Tensor]:
    """Train a model with ``loss.backward(); optimizer.step()``, and return its state dict, copied."""
    optimizer = make(model.parameters(), lr=lr)
    loader = ResidentLoader(images, batch_size=batch_size, seed=0)
    step = 0
    with torch.random.fork_rng([]):
        seed_rng(0, 0, World(0, 0, 1, torch.device("cpu")))
        for epoch in range(epochs):
            loader.set_epoch(epoch)
            for batch in loader:
                noise = fastvae.Noise(0, step, stream=TRAIN_STREAM)
                optimizer.zero_grad()
                model.loss(batch.images, noise, reduction="sum").loss.backward()
                optimizer.step()
                step += 1
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def distance(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """Return the largest difference of two state dicts, relative to the largest entry of each tensor."""
    assert first.keys() == second.keys()
    worst = 0.0
    for name, value in first.items():
        scale = value.abs().max().clamp(min=1e-5)  # smaller entries may be rounding alone
        worst = max(worst, ((value - second[name]).abs().max() / scale).item())
    return worst
