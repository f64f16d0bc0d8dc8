"""Replayed steps: equal to single steps to the bit, without waits; and microseconds and kernels per step."""

import time
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from fastvae.data import ResidentLoader
from fastvae.train.config import TrainConfig
from fastvae.train.graphs.cuda_graphs import refusing_waits
from fastvae.train.graphs.step_graphs import STEPS, StepGraphs
from fastvae.train.step.torch_flags import torch_flags

from . import engines
from .section import Section

# Preset, precision, execution. They cover both optimisers, the loss scaler, sampling and convolutions.
KINDS = (
    ("leaky", "bf16", "traced"),
    ("leaky", "bf16", "compiled"),
    ("leaky", "fp32", "traced"),
    ("classic", "fp16", "traced"),
    ("keras", "fp32", "traced"),
    ("iwae", "bf16", "traced"),
    ("conv28", "fp32", "traced"),
    ("conv28", "bf16", "compiled"),
)
DRY = (("classic", "fp32", "traced"), ("keras", "fp32", "traced"))
BATCHES, DRY_BATCHES = 103, 13  # per epoch: replays of ten steps and of one
LONGEST = 12  # kernels that are listed by name


def run(section: Section) -> str:
    engines.pretend(section)
    rows: list[dict[str, Any]] = []
    for kind in DRY if section.dry else KINDS:
        name = " ".join(kind)
        try:
            row = measured(section, *kind)
        except Exception as error:  # go on with the other kinds
            section.fail(f"{name}: {type(error).__name__}: {error}")
            continue
        rows.append({"step": name, **row})
        section.keep(steps=rows)
        if row["tensors_apart"]:
            section.fail(f"{name}: {row['tensors_apart']} tensors differ, by {row['largest']:.1e} at most")
    if not rows:
        return "none could be replayed"
    first = rows[0]
    same = sum(not row["tensors_apart"] for row in rows)
    figures = f"{first['step']}: {first['us']} us and {first['kernels']} kernels a step"
    return f"{same} of {len(rows)} have the bits of the steps one by one; {figures}"


def measured(section: Section, preset: str, precision: str, execution: str) -> dict[str, Any]:
    """Measure one kind of step. Times are microseconds per step."""
    options: dict[str, Any] = {"preset": preset, "precision": precision, "execution": execution}
    batches = BATCHES
    if section.dry:
        batches, options["batch_size"] = DRY_BATCHES, 8
    with torch_flags(TrainConfig(), section.device):
        (plain, one_by_one), (replayed, loader) = (engines.make(section, batches, **options) for _ in range(2))
        started = time.perf_counter()
        replay = StepGraphs.on_cuda(replayed, loader)
        start_up = time.perf_counter() - started
        for number in range(2):  # the first compiles the smaller last batch; the stand-in refuses waits by itself
            engines.epoch(plain, one_by_one, None, number)
            engines.wait(section.device)
            with refusing_waits() if number and not section.dry else nullcontext():
                engines.epoch(replayed, loader, replay, number)
        apart, largest = engines.difference(replayed.tensors(), plain.tensors())
        found = {
            "tensors_apart": apart,
            "largest": largest,
            "loss": round(plain.sums[0].item() / (2 * loader.count), 3),
            "start_up_s": round(start_up, 1),
            **times(loader, replay),
            **kernels(loader, replay),
        }
        replay.release()
    return found


class Spent(NamedTuple):
    """Time of some steps in microseconds: on the device, and on the host until the last launch."""

    steps: int
    device: float
    host: float


def times(loader: ResidentLoader, replay: StepGraphs) -> dict[str, float]:
    """Return microseconds per step, the median over epochs of replays."""
    spent = sorted((replays(loader, replay) for _ in range(7)), key=lambda each: each.device / each.steps)
    middle = spent[len(spent) // 2]
    return {"us": round(middle.device / middle.steps, 1), "host_us": round(middle.host / middle.steps, 2)}


def replays(loader: ResidentLoader, replay: StepGraphs) -> Spent:
    """Time the replays of an epoch."""
    loader.set_epoch(1)
    before = loader.full_steps_left()
    engines.wait(loader.images.device)
    if not loader.images.is_cuda:
        begun = time.perf_counter()
        engines.run_all(replay)
        taken = 1e6 * (time.perf_counter() - begun)
        return Spent(before - loader.full_steps_left(), taken, taken)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    begun = time.perf_counter()
    engines.run_all(replay)
    host = 1e6 * (time.perf_counter() - begun)
    end.record()
    end.synchronize()
    return Spent(before - loader.full_steps_left(), 1e3 * start.elapsed_time(end), host)


def kernels(loader: ResidentLoader, replay: StepGraphs) -> dict[str, Any]:
    """Profile what the device runs in a step: the number of kernels and copies, their time, and the longest by name."""
    loader.set_epoch(1)
    on_gpu = loader.images.is_cuda
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as profiled:
        steps = replay.fitting(STEPS)
        replay.run(steps)
        engines.wait(loader.images.device)
    found: dict[str, tuple[int, float]] = {}
    for event in profiled.events():
        if event.device_type == (DeviceType.CUDA if on_gpu else DeviceType.CPU):
            count, spent = found.get(event.name[:90], (0, 0.0))
            found[event.name[:90]] = count + 1, spent + event.time_range.elapsed_us()
    longest = sorted(found.items(), key=lambda item: -item[1][1])[:LONGEST]
    return {
        "kernels": round(sum(count for count, _ in found.values()) / steps, 1),
        "busy_us": round(sum(spent for _, spent in found.values()) / steps, 1),
        "longest": [[name, round(count / steps, 1), round(spent / steps, 2)] for name, (count, spent) in longest],
    }
