"""``python -m fastvae.parity.processes``: compare the curves of different numbers of processes."""

import json
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from rich import box
from rich.table import Table

from fastvae.data import ResidentLoader, in_memory, load
from fastvae.models import build
from fastvae.train.checkpoint.write_errors import writing
from fastvae.train.cli import guarded
from fastvae.train.config import SettledExecution, SettledPrecision, TrainConfig, resolve, settle
from fastvae.train.distributed.launch import launch
from fastvae.train.distributed.ranks import read_ranks
from fastvae.train.distributed.world import open_world
from fastvae.train.engine import Engine
from fastvae.utils.errors import InputError
from fastvae.utils.files import parse_json, write_text
from fastvae.utils.machine import device_name
from fastvae.utils.settings import check_ranges, setting
from fastvae.utils.settings.command_line import parse
from fastvae.utils.terminal import Terminal

from .config import mlp_presets

BOUNDS: dict[SettledPrecision, float] = {
    "fp64": 1e-9,
    "fp32": 1e-4,
}  # of relative differences; those of fp32 grow with steps


@dataclass(frozen=True, kw_only=True)
class ProcessesConfig:
    """Train the same by 1, 2, 3 ... processes, by batches in two parts, by shards of weights, and compare.

    The images are scikit-learn's digits, in batches that no number of processes divides. The exit status is 0 if the
    losses of all steps and the weights agree (in fp64 to a relative difference of 1e-9), else 1.
    """

    most: int = setting(4, help="Largest number of processes.", low=1)
    preset: str = setting("classic", choices=mlp_presets, help="Network and training recipe.")
    precision: Literal["fp64", "fp32"] = setting("fp64", help="Precision of the whole computation.")
    steps: int = setting(200, help="Training steps per run.", low=1)
    batch_size: int = setting(101, help="Images per step, of all processes together.", low=1)
    seed: int = setting(0, help="Random seed of the initial weights, the order of the batches and the noise.")
    compress: Literal["no", "bf16"] = setting(
        "no",
        help="Precision in which processes exchange gradients: unchanged, or bf16. bf16 is not expected to agree; the "
        "table shows how far it is off.",
    )
    device: Literal["cpu", "cuda"] = setting("cpu", help="Device to train on; cuda takes one GPU per process.")
    result: Path | None = setting(None, metavar="FILE", shown_default="none", help="JSON file to write the results to.")


@dataclass(frozen=True)
class Row:
    """Relative differences of a run's losses and weights from those of one process."""

    processes: int
    batches: str
    loss_largest: float
    loss_last: float
    weights_largest: float
    agrees: bool


def main(arguments: Sequence[str]) -> int:
    """Carry out a command line. Returns the exit status."""
    return guarded(lambda: compare(parse(ProcessesConfig, arguments, program="python -m fastvae.parity.processes")))


def compare(config: ProcessesConfig) -> int:
    """Run everything and print a table. Returns 0 if all agree, else 1. Raises InputError for bad settings."""
    check_ranges(config)
    if (ranks := read_ranks()) and ranks.size > 1:
        raise InputError(f"torchrun started {ranks.size} processes, and this starts its own: run `python -m {_MODULE}`")
    if config.device == "cuda" and (gpus := torch.cuda.device_count()) < config.most:
        raise InputError(
            f"--device cuda --most {config.most} needs {config.most} GPUs, torch sees {gpus}: "
            + (f"use --most {gpus}, or --device cpu" if gpus else "use --device cpu")
        )
    if config.result is not None and not config.result.parent.is_dir():
        raise InputError(f"{config.result} cannot be written, there is no folder {config.result.parent}: make it first")
    console = Terminal()
    bound = BOUNDS[config.precision]
    console.print(
        f"{config.preset} on digits, global batch {config.batch_size}, {config.steps} steps, {config.precision}, "
        f"{config.device}: relative differences from one process"
    )
    alone = _run(config, 1, "whole")
    few = min(config.most, 2)
    more = [(count, "whole") for count in range(2, config.most + 1)]
    others = dict.fromkeys(((1, "in two parts"), (few, "in two parts"), (few, "fsdp")))
    rows = [_row(count, how, _run(config, count, how), alone, bound) for count, how in (*more, *others)]
    columns = ("processes", "batches", "loss, largest", "loss, last step", "weights, largest", "verdict")
    table = Table(*columns, box=box.SIMPLE, pad_edge=False)
    for row in rows:
        shown = (f"{value:.1e}" for value in (row.loss_largest, row.loss_last, row.weights_largest))
        table.add_row(str(row.processes), row.batches, *shown, "agrees" if row.agrees else "differs")
    console.print(table)
    alike = all(row.agrees for row in rows)
    console.print("all agree" if alike else f"not all agree to {bound:g}")
    if config.result is not None:
        _keep(config, config.result, rows)
    return 0 if alike else 1


def _row(count: int, how: str, found: dict[str, torch.Tensor], alone: dict[str, torch.Tensor], bound: float) -> Row:
    losses = ((found["losses"] - alone["losses"]) / alone["losses"]).abs()
    weights = ((found["weights"] - alone["weights"]).abs().max() / alone["weights"].abs().max()).item()
    agrees = losses.max().item() <= bound and weights <= bound
    return Row(count, how, losses.max().item(), losses[-1].item(), weights, agrees)


def _keep(config: ProcessesConfig, path: Path, rows: Sequence[Row]) -> None:
    settings = {name: value for name, value in vars(config).items() if name not in ("device", "result")}
    content = {
        "device": device_name(torch.device(config.device)),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "settings": settings,
        "bound": BOUNDS[config.precision],
        "rows": [asdict(row) for row in rows],
    }
    with writing(path):
        write_text(path, json.dumps(content, indent=1) + "\n")


# The settings of each way to compute a batch.
_WAYS: dict[str, dict[str, Any]] = {
    "whole": {},
    "in two parts": {"accumulate": 2},
    "fsdp": {"parallel": "fsdp"},
}


def _run(config: ProcessesConfig, count: int, how: str) -> dict[str, torch.Tensor]:
    """Train with ``count`` processes. Returns the losses of all steps (steps,) and all weights, both fp64."""
    with tempfile.TemporaryDirectory(prefix="fastvae-") as folder:
        file = Path(folder) / "curve.json"
        told = {**vars(config), "result": None, "count": count, "how": how, "file": str(file)}
        status = launch(count, [_WORKER, json.dumps(told)], lambda: _work(told), module=_MODULE)
        if status != 0:
            raise InputError(f"{count} processes ended with status {status}: the lines above say why")
        return {
            name: torch.tensor(values, dtype=torch.float64) for name, values in parse_json(file.read_text()).items()
        }


_MODULE = "fastvae.parity.processes"
_WORKER = "--of-one-run"


def _work(told: dict[str, Any]) -> int:
    """Train in one of the processes; rank 0 writes the losses and the weights into a file."""
    config = resolve(
        TrainConfig(
            preset=told["preset"],
            batch_size=told["batch_size"],
            compress=told["compress"],
            seed=told["seed"],
            device=told["device"],
            **_WAYS[told["how"]],
        )
    )
    execution: SettledExecution = "eager" if config.parallel == "fsdp" else "traced"
    settled = settle(config, told["precision"], execution)
    images = in_memory(load("digits").train)
    with open_world(told["device"]) as world:
        torch.manual_seed(config.seed)
        model = build(config.recipe, images.shape[1:], config.latent_dim)
        engine = Engine(model, settled, world)
        loader = ResidentLoader(
            images,
            batch_size=config.batch_size,
            seed=config.seed,
            device=world.device,
            rank=world.rank,
            world_size=world.size,
        )

        def batches() -> Any:
            for epoch in range(told["steps"]):
                loader.set_epoch(epoch)
                yield from loader

        losses = []
        for batch in islice(batches(), told["steps"]):
            engine.sums.zero_()
            engine.train_step(batch)
            world.all_reduce(engine.sums)
            losses.append(engine.sums[0].item() / batch.rows)
        whole = engine.weights()
        if world.is_rank_0:
            weights = torch.cat([tensor.double().flatten() for tensor in whole.values()])
            Path(told["file"]).write_text(json.dumps({"losses": losses, "weights": weights.tolist()}))
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == [_WORKER]:
        given = parse_json(sys.argv[2])
        sys.exit(launch(given["count"], sys.argv[1:], lambda: _work(given), module=_MODULE))
    sys.exit(main(sys.argv[1:]))
