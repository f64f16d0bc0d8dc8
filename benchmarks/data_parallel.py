"""Time per step of two processes with one thread each, against one process with two, on the same global batch.

It compares ways to exchange gradients: fastvae's single all-reduce, and torch's DistributedDataParallel.

FASTVAE_DATA=DIR python benchmarks/data_parallel.py benchmarks/results/processes-cpu.json
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import torch
import torch.distributed as dist
import tyro
from torch.nn.parallel import DistributedDataParallel

from fastvae import ops
from fastvae.data import ResidentLoader, load
from fastvae.models import build
from fastvae.train.config import TrainConfig, resolve
from fastvae.train.distributed.launch import launch
from fastvae.train.distributed.world import open_world
from fastvae.train.engine import Engine
from fastvae.train.measure.autotune import has_fast_bf16
from fastvae.train.optim.flat_gradients import FlatGradients
from fastvae.utils.machine import device_name

PRESET, ROUNDS, STEPS, WARM = "leaky", 5, 12, 4
BATCHES = (100, 1024)
PRECISION = "bf16" if has_fast_bf16(torch.device("cpu")) else "fp32"


class Clock:
    """A global count of the seconds spent in all-reduces of gradients."""

    seconds = 0.0


def timed(function):
    def call(*arguments):
        begun = time.perf_counter()
        function(*arguments)
        Clock.seconds += time.perf_counter() - begun

    return call


FlatGradients.all_reduce = timed(FlatGradients.all_reduce)


def fastvae_steps(world, images, batch_size, compress):
    """Return the training step of fastvae's engine, traced."""
    config = resolve(
        TrainConfig(preset=PRESET, batch_size=batch_size, precision=PRECISION, execution="traced", compress=compress)
    )
    torch.manual_seed(0)
    engine = Engine(build(config.recipe, images.shape[1:], config.latent_dim), config, world)
    return engine.train_step


def eager_steps(world, images, batch_size, wrap):
    """Return an eager step with the fused loss, autocast and torch's fused Adam. `wrap` names the gradient exchange."""
    config = resolve(TrainConfig(preset=PRESET, batch_size=batch_size))
    torch.manual_seed(0)
    model = build(config.recipe, images.shape[1:], config.latent_dim)

    class Loss(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x, noise):
            mu, logvar = self.model.encode(x.float() / 255)
            z, kl = ops.reparameterize_kl(mu, logvar, noise, reduction="sum")
            return (ops.bernoulli_nll(self.model.decoder(z), x, reduction="sum") + kl) / batch_size

    module = Loss()
    flat = None
    if wrap == "ddp" and world.size > 1:
        module = DistributedDataParallel(module, gradient_as_bucket_view=True)
    if wrap == "flat" and world.size > 1:
        parameters = list(model.parameters())
        flat = torch.zeros(sum(p.numel() for p in parameters))
        for parameter, view in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = view.view_as(parameter)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, fused=True)
    noise = ops.Noise(0)

    all_reduce = timed(world.all_reduce)

    def step(batch):
        optimizer.zero_grad(set_to_none=flat is None)
        with torch.autocast("cpu", torch.bfloat16, PRECISION == "bf16"):
            loss = module(batch.images, noise)
        # DDP averages over ranks, but the loss is a share of the sum over them.
        (loss * world.size if wrap == "ddp" else loss).backward()
        if flat is not None:
            all_reduce(flat)
        optimizer.step()
        noise.advance()

    return step


DDP = "eager loop, DistributedDataParallel"
CONTENDERS = {
    "fastvae": lambda *a: fastvae_steps(*a, "no"),
    "fastvae --compress bf16": lambda *a: fastvae_steps(*a, "bf16"),
    "eager loop, one flat all-reduce": lambda *a: eager_steps(*a, "flat"),
    DDP: lambda *a: eager_steps(*a, "ddp"),
}


def work(file):
    """Run all contenders on this rank. Rank 0 writes the median of a step and the share spent in all-reduces.

    The share is None for DistributedDataParallel, which sums inside backward, where this script has no clock.
    """
    images = load("mnist").train[:]
    with open_world("cpu") as world:
        if world.size == 1:
            torch.set_num_threads(len(os.sched_getaffinity(0)))
        results = []
        for batch_size in BATCHES:
            loader = ResidentLoader(images, batch_size=batch_size, seed=0, rank=world.rank, world_size=world.size)
            batches = list(islice(iter(loader), WARM + STEPS))
            steps = {name: make(world, images, batch_size) for name, make in CONTENDERS.items()}
            times = {name: [] for name in steps}
            for step in steps.values():
                for batch in batches[:WARM]:
                    step(batch)
            for _ in range(ROUNDS):
                for name, step in steps.items():
                    world.barrier()
                    Clock.seconds = 0.0
                    begun = time.perf_counter()
                    for batch in batches[WARM:]:
                        step(batch)
                    times[name].append(((time.perf_counter() - begun) / STEPS, Clock.seconds / STEPS))
            for name, found in times.items():
                seconds = statistics.median(whole for whole, _ in found)
                share = None if name == DDP else statistics.median(part / whole for whole, part in found)
                results.append({"batch_size": batch_size, "run": name, "step_ms": seconds * 1e3, "summing": share})
        if world.is_rank_0:
            Path(file).write_text(json.dumps(results))
        if dist.is_initialized():
            dist.barrier()
    return 0


def main(path: tyro.conf.Positional[Path]) -> None:
    """Run one process and two in turns, three times each, and write the medians.

    Args:
        path: JSON file to write.
    """
    found = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(3):
            for count, runs in found.items():
                file = Path(folder) / f"{count}-{turn}.json"
                command = [sys.executable, __file__, "--work", str(count), str(file)]
                here = {
                    **os.environ,
                    "PYTHONPATH": str(Path(__file__).parent),
                }  # so that the processes find this module
                subprocess.run(command, check=True, env=here)
                runs.append(json.loads(file.read_text()))
    rows = []
    for row in range(len(found[1][0])):
        one, two = ([run[row] for run in found[count]] for count in (1, 2))
        medians = [statistics.median(run["step_ms"] for run in runs) for runs in (one, two)]
        shares = [run["summing"] for run in two if run["summing"] is not None]
        rows.append(
            {
                "batch_size": one[0]["batch_size"],
                "run": one[0]["run"],
                "one_process_ms": round(medians[0], 3),
                "two_processes_ms": round(medians[1], 3),
                "ratio": round(medians[1] / medians[0], 3),
                "summing_share": round(statistics.median(shares), 3) if shares else None,
            }
        )
        print(rows[-1])
    versions = {
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
    content = {"device": device_name(torch.device("cpu")), "versions": versions, "preset": PRESET}
    path.write_text(json.dumps({**content, "precision": PRECISION, "runs": rows}, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        sys.exit(launch(int(sys.argv[2]), sys.argv[1:], lambda: work(sys.argv[3]), module="data_parallel"))
    tyro.cli(main)
