"""The report of a race: ratios, a table, a JSON file, a plot."""

import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich import box
from rich.table import Table

from fastvae.bench.contenders.products import Products
from fastvae.bench.contenders.workload import Workload
from fastvae.utils.errors import InputError
from fastvae.utils.files import reason, write_text
from fastvae.utils.machine import device_name
from fastvae.utils.matplotlib_figures import new_figure, write_figure
from fastvae.utils.terminal import Terminal
from fastvae.utils.version import __version__

from .race import Result

_COLORS = {"tutorial": "C7", "pythae": "C7", "torch": "C0", "jax": "C4", "fastvae": "C1", "floor": "C2"}


class Ratios(NamedTuple):
    """Speed of a contender relative to others, by median times; None where there is nothing to compare with.

    Attributes:
        to_baseline: times faster than the faster tutorial loop, or than pythae.
        to_torch: times faster than the fastest torch loop.
        to_jax: times faster than the faster jax loop.
        of_floor: the time of the floor in the same precision over its own.
        of_peak: the rate at which a step's products run, as a share of the highest that was measured in the precision.
    """

    to_baseline: float | None
    to_torch: float | None
    to_jax: float | None
    of_floor: float | None
    of_peak: float | None


def ratios(result: Result, results: Sequence[Result]) -> Ratios:
    """Compute the ratios of a contender to the others. A floor has only a share of the peak rate."""

    def fastest(*kinds: str, precision: str | None = None) -> float | None:
        times = [other.median for other in results if other.kind in kinds and precision in (None, other.precision)]
        return min(times, default=None)

    def over(seconds: float | None) -> float | None:
        return None if seconds is None else seconds / result.median

    of_peak = None
    for other in results:
        if other.products is not None and other.precision == result.precision:
            of_peak = over(other.products.flops / other.products.peak)
    if result.kind == "floor":
        return Ratios(None, None, None, None, of_peak)
    baseline = over(fastest("tutorial", "pythae"))
    floor = over(fastest("floor", precision=result.precision))
    return Ratios(baseline, over(fastest("torch")), over(fastest("jax")), floor, of_peak)


def show(
    console: Terminal, workload: Workload, results: Sequence[Result], absent: Mapping[str, str] | None = None
) -> None:
    """Print the table, the peak rates, and who was left out and why."""
    several = len(results[0].test_losses) > 1
    baseline = "pythae" if any(result.kind == "pythae" for result in results) else "tutorial"
    compared = {"to_baseline": f"x {baseline}", "to_torch": "x torch"}
    if any(result.kind == "jax" for result in results):
        compared["to_jax"] = "x jax"
    compared["of_floor"] = "of floor"
    if any(result.products for result in results):
        compared["of_peak"] = "of peak"
    columns = ["", "ms a step", "quartiles", "s an epoch", "images/s", *compared.values(), "test loss", "start-up s"]
    table = Table(*columns, box=box.SIMPLE, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for result in results:
        low, high = result.quartiles
        name = f"{result.name} ({result.note})" if result.note else result.name
        loss = ""
        if result.test_losses:
            spread = f" ({min(result.test_losses):.2f} to {max(result.test_losses):.2f})" if several else ""
            loss = f"{result.test_loss:.2f}{spread}"
        shares = ratios(result, results)._asdict()
        table.add_row(
            name,
            f"{1e3 * result.median:.3f}",
            f"{1e3 * low:.3f} to {1e3 * high:.3f}",
            f"{result.median * workload.epoch_steps:.3f}",
            f"{workload.batch_size / result.median:,.0f}",
            *("" if shares[ratio] is None else f"{shares[ratio]:.2f}" for ratio in compared),
            loss,
            f"{result.start_up:.1f}",
        )
    console.print(
        f"{workload.name} on {workload.dataset.name}, {len(workload.dataset.train):,} images, "
        f"batch {workload.batch_size}; {device_name(workload.device)}, {torch.get_num_threads()} threads; "
        f"torch {torch.__version__}; medians of {len(results[0].seconds)} {_timed(workload)}"
    )
    console.print(table)
    for result in results:
        if result.products is not None:
            console.print(
                f"{result.name}: {result.products.libraries}; of peak is of the {result.products.peak / 1e9:,.0f} "
                f"GFLOP/s of the fastest product that was measured in {result.precision}"
            )
    for why in dict.fromkeys((absent or {}).values()):
        names = [name for name, reason in (absent or {}).items() if reason == why]
        console.print(f"left out: {', '.join(names)}; {why}")


def _timed(workload: Workload) -> str:
    return "epochs" if workload.steps is None else f"slices of {workload.steps} steps"


def content(
    workload: Workload, results: Sequence[Result], objections: Sequence[str], absent: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return a comparison as the JSON file holds it: seconds per step, losses in nats per sample, FLOP/s."""
    return {
        "network": workload.name,
        "data": workload.dataset.name,
        "images": len(workload.dataset.train),
        "batch_size": workload.batch_size,
        "steps_an_epoch": workload.epoch_steps,
        "timed": _timed(workload),
        "void": list(objections),
        "left_out": dict(absent or {}),
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
                **_measured(result.products),
            }
            for result in results
        ],
    }


def _measured(products: Products | None) -> dict[str, Any]:
    """Return what a floor was chosen from; nothing for others."""
    if products is None:
        return {}
    each = [{**asdict(product), "flops_per_s": product.flops / product.seconds} for product in products.each]
    return {"peak_flops_per_s": products.peak, "step_flops": products.flops, "products": each}


def write_json(path: Path, device: torch.device, comparisons: Sequence[dict[str, Any]]) -> None:
    """Write measurements, device and versions. Raises InputError if the file cannot be written."""
    versions = {"fastvae": __version__, "torch": torch.__version__}
    if any(row["kind"] == "jax" for comparison in comparisons for row in comparison["contenders"]):
        versions |= {package: importlib.metadata.version(package) for package in ("jax", "optax")}
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
