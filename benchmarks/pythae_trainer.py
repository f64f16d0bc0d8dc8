"""Pythae's own trainer on MNIST, unpatched and with fastvae.patch: loss curves and time per epoch.

Run `make adapters` first, then

FASTVAE_DATA=DIR .venv-adapters/bin/python benchmarks/pythae_trainer.py benchmarks/results/pythae-trainer-mnist-cpu.json
"""

import contextlib
import importlib.metadata
import json
import logging
import statistics
import tempfile
import time
from pathlib import Path

import torch
import tyro
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback

import fastvae
from fastvae.train.distributed.world import resolve_device
from fastvae.utils.machine import device_name

STEPS = 200  # length of the curves that are compared
ROUNDS = 3  # of timed epochs, one with and one without the patch in each
BATCH = 100


class Record(TrainingCallback):
    """A callback that records the seconds of each epoch's training steps."""

    def __init__(self):
        self.seconds = []

    def on_train_step_begin(self, *_, **__):  # pythae calls it once before an epoch's steps
        self.start = time.perf_counter()

    def on_epoch_end(self, *_, **__):
        self.seconds.append(time.perf_counter() - self.start)


def train(images, loss, patched, dtype=torch.float32, nudge=False):
    """Train an epoch by pythae's trainer, always from the same seed. Returns the loss of each step, and the seconds.

    ``nudge`` changes the last bit of the initial weights, to show the effect of rounding alone on the curve.
    """
    losses = []
    record = Record()
    with tempfile.TemporaryDirectory() as folder, fastvae.patch.pythae() if patched else contextlib.nullcontext():
        torch.manual_seed(0)
        model = VAE(VAEConfig(input_dim=tuple(images.shape[1:]), latent_dim=16, reconstruction_loss=loss)).to(dtype)
        if nudge:
            for weight in model.parameters():
                weight.data = torch.nextafter(weight.data, torch.tensor(torch.inf))
        settings = BaseTrainerConfig(
            output_dir=folder, num_epochs=1, per_device_train_batch_size=BATCH, learning_rate=1e-3, seed=0
        )
        data = BaseDataset(images, torch.zeros(len(images)))
        data.data = images.to(dtype)
        trainer = BaseTrainer(model, data, training_config=settings, callbacks=[record])
        model.register_forward_hook(lambda model, _, output: losses.append(output.loss.detach()))
        trainer.train()
    return torch.stack(losses).cpu(), record.seconds[0]


def difference(curve, other):
    """Return the largest relative difference of two curves."""
    return float(f"{((curve - other).abs() / other).max():.2e}")


def measure(images, loss):
    """Compare both curves over some steps, and time interleaved epochs of both."""
    start = images[: STEPS * BATCH]
    plain, fused, nudged = (
        train(start, loss, patched, nudge=nudge)[0] for patched, nudge in ((False, False), (True, False), (False, True))
    )
    plain64, fused64 = (train(start, loss, patched, torch.float64)[0] for patched in (False, True))
    seconds = {True: [], False: []}
    for _ in range(ROUNDS):
        for patched in (False, True):
            seconds[patched].append(train(images, loss, patched)[1])
    before, after = (statistics.median(seconds[patched]) for patched in (False, True))
    return {
        "model": "pythae VAE 784-512-16, 16-512-784",
        "reconstruction_loss": loss,
        "batch_size": BATCH,
        "steps_compared": len(plain),
        "largest_relative_difference": {
            "patched, fp64": difference(fused64, plain64),
            "patched, fp32": difference(fused, plain),
            "unpatched from weights one bit off, fp32": difference(nudged, plain),
        },
        "epoch_s": {"pythae": round(before, 3), "patched": round(after, 3), "ratio": round(before / after, 3)},
        "epochs_s": {"pythae": seconds[False], "patched": seconds[True]},
        "loss": {"pythae": plain.tolist(), "patched": fused.tolist()},
    }


def main(path: tyro.conf.Positional[Path]) -> None:
    logging.disable(logging.INFO)
    images = fastvae.data.load("mnist").train[:].float() / 255
    names = ("fastvae", "torch", "pythae")
    runs = [measure(images, loss) for loss in ("bce", "mse")]
    content = {
        "device": device_name(resolve_device("auto")),
        "versions": {name: importlib.metadata.version(name) for name in names},
        "data": "mnist",
        "runs": runs,
    }
    path.write_text(json.dumps(content, indent=2) + "\n")
    for run in runs:
        print({key: value for key, value in run.items() if key not in ("loss", "epochs_s")})


if __name__ == "__main__":
    tyro.cli(main)
