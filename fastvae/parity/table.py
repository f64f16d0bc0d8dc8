"""The table of ``python -m fastvae.parity``."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from rich import box
from rich.table import Table

from fastvae.backends import has_native, has_triton
from fastvae.data import in_memory, load
from fastvae.nn import as_likelihood
from fastvae.ops import Backend
from fastvae.train.binarize import check_binarize
from fastvae.train.config import SettledExecution, SettledPrecision, TrainConfig, resolve
from fastvae.train.distributed.world import resolve_device
from fastvae.train.inputs import check_pixels
from fastvae.utils.machine import device_name
from fastvae.utils.settings import check_ranges
from fastvae.utils.terminal import Terminal

from .config import ParityConfig
from .curves import Setting
from .rules import Verdict, Yardstick, judge

BETA = 1.5  # not 1, so that a factor that is lost shows


def compare(config: ParityConfig) -> int:
    """Run everything and print a table. Returns 0 if all agree, else 1. Raises InputError for bad settings."""
    check_ranges(config)
    device = resolve_device(config.device)
    settings = resolve(TrainConfig(preset=config.preset, seed=config.seed, beta=BETA, data=config.data))
    dataset = load(config.data, config.data_dir)
    check_pixels(settings.preset, dataset)
    if settings.binarize:
        check_binarize(dataset, as_likelihood(settings.recipe.likelihood))
    setting = Setting(settings, in_memory(dataset.train), config.steps, device)
    marks = sorted({step for step in (1, 10, 100, config.steps) if step <= config.steps})
    console = Terminal()
    console.print(
        f"{config.preset} on {config.data}, batch {settings.batch_size}, {config.steps} steps, {device_name(device)}: "
        "relative differences from the reference's loop in fp64"
    )
    columns = ("", "run", *(f"step {mark}" for mark in marks), "largest", "weights", "verdict")
    table = Table(*columns, box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    table.columns[1].no_wrap = True
    objections = []
    for precision, run, verdict in rows(setting, config.compiled):
        shown = [verdict.differences[mark - 1].item() for mark in marks] + [verdict.differences.max().item()]
        told = "-" if run == YARDSTICK else "agrees" if verdict.agrees else "differs"
        table.add_row(precision, run, *(f"{value:.1e}" for value in (*shown, verdict.weights)), told)
        if not verdict.agrees:
            objections.append(f"{precision} {run}: {verdict.objection}")
    console.print(table)
    if not objections:
        console.print("all agree")
        return 0
    for objection in objections:
        console.print(objection)
    if all(objection.startswith("fp32") for objection in objections):
        console.print(
            "In fp32, a ReLU whose input is within rounding of 0 can separate two curves: try another --seed."
        )
    return 1


YARDSTICK = "the eager loop"


def rows(setting: Setting, compiled: bool) -> Iterator[tuple[SettledPrecision, str, Verdict]]:
    """Yield precision, run and verdict of everything that this machine can run, the yardstick first in a precision."""
    executions: tuple[SettledExecution, ...] = ("eager", "traced", "compiled") if compiled else ("eager", "traced")
    truth = setting.reference("fp64")
    for precision in precisions(setting.device):
        by = Yardstick.of(setting, precision, truth)
        if precision != "fp64":
            yield precision, YARDSTICK, judge(by.eager, by)
        for backend in backends(setting.device):
            here = replace(setting, config=replace(setting.config, backend=backend))
            for execution in executions:
                yield precision, f"{execution} {backend}", judge(here.fused(precision, execution), by)


def precisions(device: torch.device) -> tuple[SettledPrecision, ...]:
    """Return the precisions that the device has. A CPU only emulates fp16, which is left out."""
    return ("fp64", "fp32", "bf16", "fp16") if device.type == "cuda" else ("fp64", "fp32", "bf16")


def backends(device: torch.device) -> list[Backend]:
    """Return the backends that the device has, the reference among them."""
    if device.type == "cuda":
        return ["triton", "reference"] if has_triton() else ["reference"]
    return ["native", "reference"] if has_native() else ["reference"]
