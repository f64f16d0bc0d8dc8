"""The report of a race: ratios, a table, a JSON file, a plot."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich import box
from rich.table import Table

from fastvae.bench.contenders.workload import Workload
from fastvae.utils.errors import InputError
from fastvae.utils.files import reason, write_text
from fastvae.utils.machine import device_name
from fastvae.utils.matplotlib_figures import new_figure, write_figure
from fastvae.utils.terminal import Terminal
from fastvae.utils.version import __version__

from .race import Result

_COLORS = {"tutorial": "C7", "pythae": "C7", "torch": "C0", "fastvae": "C1", "floor": "C2"}


class Ratios(NamedTuple):
    """Speed of a contender relative to others, by median times; None where there is nothing to compare with.

    Attributes:
        to_baseline: times faster than the faster tutorial loop, or than pythae.
        to_torch: times faster than the fastest torch loop.
        of_floor: the time of the floor in the same precision over its own.
    """

    to_baseline: float | None
    to_torch: float | None
    of_floor: float | None


def ratios(result: Result, results: Sequence[Result]) -> Ratios:
    """Compute the ratios of a contender to the others. A floor has none."""

    def fastest(*kinds: str, precision: str | None = None) -> float | None:
        times = [other.median for other in results if other.kind in kinds and precision in (None, other.precision)]
        return min(times, default=None)

    def over(seconds: float | None) -> float | None:
        return None if seconds is None else seconds / result.median

    if result.kind == "floor":
        return Ratios(None, None, None)
    floor = fastest("floor", precision=result.precision)
    return Ratios(over(fastest("tutorial", "pythae")), over(fastest("torch")), over(floor))


def show(console: Terminal, workload: Workload, results: Sequence[Result]) -> None:
    """Print the table."""
    several = len(results[0].test_losses) > 1
    baseline = "pythae" if any(result.kind == "pythae" for result in results) else "tutorial"
    columns = ["", "ms a step", "quartiles", "s an epoch", "images/s", f"x {baseline}", "x torch", "of floor"]
    table = Table(*columns, "test loss", "start-up s", box=box.SIMPLE, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for result in results:
        low, high = result.quartiles
        name = f"{result.name} ({result.note})" if result.note else result.name
        loss = ""
        if result.test_losses:
            spread = f" ({min(result.test_losses):.2f} to {max(result.test_losses):.2f})" if several else ""
            loss = f"{result.test_loss:.2f}{spread}"
        to_baseline, to_torch, of_floor = ratios(result, results)
        table.add_row(
            name,
            f"{1e3 * result.median:.3f}",
            f"{1e3 * low:.3f} to {1e3 * high:.3f}",
            f"{result.median * workload.epoch_steps:.3f}",
            f"{workload.batch_size / result.median:,.0f}",
            *("" if ratio is None else f"{ratio:.2f}" for ratio in (to_baseline, to_torch, of_floor)),
            loss,
            f"{result.start_up:.1f}",
        )
    console.print(
        f"{workload.name} on {workload.dataset.name}, {len(workload.dataset.train):,} images, "
        f"batch {workload.batch_size}; {device_name(workload.device)}, {torch.get_num_threads()} threads; "
        f"torch {torch.__version__}; medians of {len(results[0].seconds)} {_timed(workload)}"
    )
    console.print(table)


def _timed(workload: Workload) -> str:
    return "epochs" if workload.steps is None else f"slices of {workload.steps} steps"


def content(workload: Workload, results: Sequence[Result], objections: Sequence[str]) -> dict[str, Any]:
    """Return a comparison as the JSON file holds it: seconds per step, losses in nats per sample."""
    return {
        "network": workload.name,
        "data": workload.dataset.name,
        "images": len(workload.dataset.train),
        "batch_size": workload.batch_size,
        "steps_an_epoch": workload.epoch_steps,
        "timed": _timed(workload),
        "void": list(objections),
        "contenders": [
            {
                "name": result.name,
                "kind": result.kind,
                "precision": result.precision,
                "note": result.note,
                "median_s": result.median,
                "quartiles_s": result.quartiles,
                "seconds": result.seconds,
                "start_up_s": result.start_up,
                "test_losses": result.test_losses,
                **ratios(result, results)._asdict(),
            }
            for result in results
        ],
    }


def write_json(path: Path, device: torch.device, comparisons: Sequence[dict[str, Any]]) -> None:
    """Write measurements, device and versions. Raises InputError if the file cannot be written."""
    versions = {"fastvae": __version__, "torch": torch.__version__}
    head = {"device": device_name(device), "threads": torch.get_num_threads(), "versions": versions}
    try:
        write_text(path, json.dumps({**head, "comparisons": comparisons}, indent=2) + "\n")
    except OSError as error:
        raise InputError(f"cannot write {path} ({reason(error)}): choose another --json") from error


def plot(path: Path, workload: Workload, results: Sequence[Result]) -> None:
    """Plot milliseconds per step, one point per contender. Raises InputError if the file cannot be written."""
    figure = new_figure(figsize=(8, 0.3 * len(results) + 1))
    axes = figure.subplots()
    shown = list(results)[::-1]
    for at, result in enumerate(shown):
        low, high = result.quartiles
        center = 1e3 * result.median
        spread = [[center - 1e3 * low], [1e3 * high - center]]
        axes.errorbar(center, at, xerr=spread, fmt="o", markersize=4, capsize=2, color=_COLORS[result.kind])
        axes.annotate(f"{center:.3g}", (center, at), (0, 4), textcoords="offset points", ha="center", fontsize=7)
    axes.set_yticks(range(len(shown)), [result.name for result in shown], fontsize=8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.tick_params(axis="x", which="both", labelsize=7)
    axes.grid(axis="x", which="both", linewidth=0.3)
    axes.margins(x=0.1, y=0.06)
    axes.set_xlabel("ms a step, median and quartiles")
    axes.set_title(
        f"{workload.name} on {workload.dataset.name}, batch {workload.batch_size}: {device_name(workload.device)}",
        fontsize=9,
        parse_math=False,
    )
    try:
        write_figure(figure, path, dpi=110)
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror}): choose another --plot") from error
