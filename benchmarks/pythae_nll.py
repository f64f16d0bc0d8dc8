"""Importance-sampled log-likelihoods by pythae's ``get_nll`` and by ``fastvae nll``: time a picture, and the estimates.

Both evaluate the same weights, of pythae's own network (784-512-20, ReLU, Bernoulli), trained here for some epochs on
black and white MNIST. Run `make adapters` first, then

FASTVAE_DATA=DIR .venv-adapters/bin/python benchmarks/pythae_nll.py --out benchmarks/results/pythae-nll-mnist-cpu.json

With `--threads 1` the clock is the thread's CPU time, which other programs on the machine disturb less.
"""

import importlib.metadata
import json
import logging
import statistics
import time
from pathlib import Path
from typing import Annotated

import torch
import tyro
from pythae import models

import fastvae
from fastvae.evaluate.log_likelihood import NllEstimator, estimate_nll
from fastvae.models import mlp_vae
from fastvae.ops import Noise
from fastvae.utils.machine import device_name

BATCH = 200
PRECISIONS = ("fp32", "bf16")


def trained(images, epochs):
    """Train fastvae's VAE of that network on uint8 images."""
    torch.manual_seed(0)
    model = mlp_vae(tuple(images.shape[1:]), (512,), 20)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for epoch in range(epochs):
        order = torch.randperm(len(images))
        for step, rows in enumerate(order.split(BATCH)):
            optimizer.zero_grad()
            model.loss(images[rows], Noise(epoch, step)).loss.backward()
            optimizer.step()
    return model.eval()


def of_pythae(model, shape):
    """Return pythae's VAE with the weights of ``model``, which both libraries keep in one order."""
    theirs = models.VAE(models.VAEConfig(input_dim=shape, latent_dim=20, reconstruction_loss="bce"))
    for part in ("encoder", "decoder"):
        pairs = zip(model.get_submodule(part).parameters(), theirs.get_submodule(part).parameters(), strict=True)
        for ours, other in pairs:
            other.data.copy_(ours.data)
    return theirs.eval()


def quartiles(values):
    return [round(value, 3) for value in statistics.quantiles(values, n=4)]


def mean_and_error(values):
    return round(values.mean().item(), 4), round(values.std().item() / len(values) ** 0.5, 4)


def measure(model, images, samples, laps, clock):
    """Time laps of a picture by pythae and some by fastvae, in turns, and compare the estimates of all pictures."""
    theirs = of_pythae(model, tuple(images.shape[1:]))
    floats = images.float() / 255
    estimators = {precision: NllEstimator(model, samples, 0, precision=precision) for precision in PRECISIONS}
    times = {"pythae": [], **{precision: [] for precision in PRECISIONS}}
    pythae = []
    for number in range(laps):
        at = number % len(images)
        started = clock()
        with torch.no_grad():
            value = -theirs.get_nll(floats[at : at + 1], n_samples=samples)
        times["pythae"].append(clock() - started)
        pythae.append(value)
        for precision, estimator in estimators.items():
            count = min(estimator.at_once(images), len(images))
            started = clock()
            estimator(images[:count])
            times[precision].append((clock() - started) / count)
    warm = {name: values[1:] for name, values in times.items()}
    theirs_each = torch.tensor(pythae[: len(images)], dtype=torch.float64)
    result = {
        "ms_a_picture": {name: quartiles([1000 * value for value in values]) for name, values in warm.items()},
        "nats": {"pythae": mean_and_error(theirs_each)},
    }
    for precision in PRECISIONS:
        ratios = [a / b for a, b in zip(warm["pythae"], warm[precision], strict=True)]
        each = torch.cat(list(estimate_nll(model, images, samples, 0, precision=precision)))[: len(theirs_each)]
        result["nats"][precision] = mean_and_error(each)
        result[f"times_faster_{precision}"] = quartiles(ratios)
        result[f"difference_{precision}"] = mean_and_error(each - theirs_each)
    return result


def main(
    out: Path | None = None,
    samples: int = 1000,
    laps: Annotated[int, tyro.conf.arg(help="A picture of pythae's each.")] = 40,
    epochs: int = 3,
    threads: int | None = None,
    weights: Annotated[Path | None, tyro.conf.arg(help="A state dict of the network, for --epochs 0.")] = None,
) -> None:
    logging.disable(logging.INFO)
    if threads is not None:
        torch.set_num_threads(threads)
    clock = time.thread_time if threads == 1 else time.perf_counter
    data = fastvae.data.load("mnist")
    model = trained(Noise(1).binarize(data.train[:]), epochs)
    if weights is not None:
        model.load_state_dict(torch.load(weights, weights_only=True))
    result = {
        "device": device_name(torch.device("cpu")),
        "versions": {name: importlib.metadata.version(name) for name in ("fastvae", "torch", "pythae")},
        "network": "784-512-20",
        "samples": samples,
        "threads": torch.get_num_threads(),
        "clock": clock.__name__,
        "quartiles": "lower, median, upper",
        **measure(model, Noise(2).binarize(data.test[:laps]), samples, laps, clock),
    }
    print(json.dumps(result, indent=2))
    if out is not None:
        out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
