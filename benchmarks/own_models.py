"""Steps of models of one's own beside the same network as a preset, and beside a loop in plain torch, in one run.

    python benchmarks/own_models.py --preset leaky --turns 40

Every contender takes steps in turns, in one process, on the same batch; the table has medians and their ratios.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

import fastvae
from fastvae.data import ResidentLoader
from fastvae.models import PRESETS, VAE, build
from fastvae.train.config import TrainConfig, resolve, settle
from fastvae.train.distributed.world import World
from fastvae.train.engine import Engine
from fastvae.train.start.allocator import keeping_freed_memory
from fastvae.train.step.loss import TRAIN_STREAM

STEPS = 20  # in a turn


class Wrapped(nn.Module):
    """The network of a preset, behind a forward that fastvae does not know."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Counting(Wrapped):
    """Counts its calls, as a warm-up does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.layers(x * min(1.0, self.calls / 100))


class Branching(Wrapped):
    """Branches on the values of its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(1 - x if x.mean() > 0.9 else x)


def model_of(preset: str, kind: type[Wrapped] | None) -> VAE:
    torch.manual_seed(0)
    model = build(PRESETS[preset], (1, 28, 28))
    if kind is not None:
        model = VAE(kind(model.encoder), model.decoder, model.likelihood, latent_shape=model.latent_shape)
    return model


def by_trainer(
    preset: str, kind: type[Wrapped] | None, images: torch.Tensor, precision: str, execution: str
) -> Callable[[], None]:
    config = settle(resolve(TrainConfig(preset=preset, batch_size=100, device="cpu")), precision, execution)
    engine = Engine(model_of(preset, kind), config, World(0, 0, 1, torch.device("cpu")), dataset_size=len(images))
    batch = ResidentLoader(images, batch_size=100, seed=0).fetch(0)
    return lambda: engine.train_step(batch)


def by_plain_torch(preset: str, kind: type[Wrapped], images: torch.Tensor) -> Callable[[], None]:
    model = model_of(preset, kind)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    batch = ResidentLoader(images, batch_size=100, seed=0).fetch(0)
    noise = fastvae.Noise(0, stream=TRAIN_STREAM)

    def step() -> None:
        optimizer.zero_grad()
        model.loss(batch.images, noise, reduction="sum").loss.backward()
        optimizer.step()
        noise.advance()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="leaky")
    parser.add_argument("--turns", type=int, default=40)
    options = parser.parse_args()
    images = torch.randint(0, 256, (1000, 1, 28, 28), dtype=torch.uint8)
    preset = options.preset
    contenders = {
        "preset, fp32 traced": by_trainer(preset, None, images, "fp32", "traced"),
        "own, fp32 traced under guards": by_trainer(preset, Wrapped, images, "fp32", "traced"),
        "preset, bf16 traced": by_trainer(preset, None, images, "bf16", "traced"),
        "own, bf16 traced under guards": by_trainer(preset, Wrapped, images, "bf16", "traced"),
        "plain torch, fp32": by_plain_torch(preset, Wrapped, images),
        "own with a counter, fp32": by_trainer(preset, Counting, images, "fp32", "traced"),
        "plain torch with a counter, fp32": by_plain_torch(preset, Counting, images),
        "own with a branch, fp32": by_trainer(preset, Branching, images, "fp32", "traced"),
        "plain torch with a branch, fp32": by_plain_torch(preset, Branching, images),
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    with keeping_freed_memory():  # as in a run
        for step in contenders.values():
            for _ in range(STEPS):
                step()
        for _ in range(options.turns):
            for name, step in contenders.items():
                started = time.perf_counter()
                for _ in range(STEPS):
                    step()
                times[name].append((time.perf_counter() - started) / STEPS)
    for name, values in times.items():
        print(f"{name:36s} {1e3 * statistics.median(values):7.3f} ms a step")
    for own, base in (
        ("own, fp32 traced under guards", "preset, fp32 traced"),
        ("own, bf16 traced under guards", "preset, bf16 traced"),
        ("own with a counter, fp32", "plain torch with a counter, fp32"),
        ("own with a branch, fp32", "plain torch with a branch, fp32"),
    ):
        ratios = [mine / theirs for mine, theirs in zip(times[own], times[base], strict=True)]
        print(f"{own} / {base}: {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
