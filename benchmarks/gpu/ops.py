"""Device time of operations, forward and backward, against a copy of their bytes, eager and torch.compile.

Sizes of 1 to 4 GB come first, because they show the share of the memory's bandwidth, then smaller ones if time allows.
"""

import math
import statistics
from collections.abc import Iterator
from typing import Any, NamedTuple

import timing  # benchmarks/timing.py
import torch
from operations import OPERATIONS, Operation  # benchmarks/operations.py

from fastvae.bench.warm_up import page_in_constants
from fastvae.train.config import TrainConfig
from fastvae.train.step.torch_flags import torch_flags

from .section import Section

COMPILED = ("bernoulli_nll", "gaussian_nll", "gaussian_kl", "reparameterize_kl")  # torch.compile takes seconds for each
ENOUGH_S = 8.0  # no new cell begins later than this before the limit
DRY_SHAPE = (4, 21)


class Cell(NamedTuple):
    """An operation to time at a shape and dtype. ``compiled`` adds torch.compile."""

    operation: Operation
    shape: tuple[int, int]
    dtype: torch.dtype
    compiled: bool

    @property
    def name(self) -> str:
        return f"{self.operation.name} {self.shape[0]}x{self.shape[1]} {timing.KINDS[self.dtype]}"


def cells() -> Iterator[Cell]:
    """Yield all cells, the most telling first."""
    for operation in sorted(OPERATIONS, key=lambda each: each.name not in COMPILED):
        for dtype in operation.dtypes:
            yield Cell(operation, operation.shapes[-1], dtype, compiled=False)
    for at in (-1, 0, 1):
        for operation in OPERATIONS:
            if operation.name in COMPILED:
                yield from (Cell(operation, operation.shapes[at], dtype, compiled=True) for dtype in operation.dtypes)


def dry_cells() -> list[Cell]:
    return [Cell(operation, DRY_SHAPE, torch.float32, compiled=False) for operation in OPERATIONS[::4]]


def run(section: Section) -> str:
    wanted = dry_cells() if section.dry else list(cells())
    rows: dict[str, dict[str, Any]] = {}
    done = 0
    with torch_flags(TrainConfig(), section.device):
        page_in_constants()
        for cell in wanted:
            if section.seconds_left() < ENOUGH_S:
                break
            try:
                rows[cell.name] = rows.get(cell.name, {}) | measured(cell, section.device, rows.get(cell.name))
            except Exception as error:  # go on with the other cells
                section.fail(f"{cell.name}: {type(error).__name__}: {error}")
            done += 1
            section.keep(ops=rows)
    told = f"{len(rows)} timed"
    if shares := [row["of_a_copy"] for row in rows.values() if row["gb"] >= 1]:
        told += f"; of 1 GB and more, {statistics.median(shares):.2f} of a copy's speed in the median"
    return told + (f"; {len(wanted) - done} of {len(wanted)} were not reached" if done < len(wanted) else "")


def measured(cell: Cell, device: torch.device, known: dict[str, Any] | None) -> dict[str, Any]:
    """Return microseconds of each contender; for small operations, wall time too. ``known``: an earlier cell's row."""
    moved = cell.operation.bytes(cell.shape, cell.dtype)
    names = [name for name in cell.operation.contenders() if name == "fastvae" or name.startswith("eager")]
    names = [name for name in names if known is None] + (["torch.compile"] if cell.compiled else [])
    row: dict[str, Any] = known or {"gb": moved / 1e9, "copy_us": us(timing.copy_seconds(moved, device)), "us": {}}
    for name in names:
        calls = cell.operation.calls(name, cell.shape, cell.dtype, device)
        sets = calls.rotate()
        try:
            row["us"][name] = us(timing.device_seconds(calls, sets))
        except RuntimeError as error:  # it cannot be captured
            if name == "fastvae":
                raise
            row.setdefault("not_captured", {})[name] = str(error).partition("\n")[0][:200]
            continue
        if moved < 1e8:
            row.setdefault("wall_us", {})[name] = us(timing.wall_seconds(calls, sets))
        del calls
    ours = row["us"]["fastvae"]
    best = min((time for name, time in row["us"].items() if name != "fastvae"), default=math.nan)
    return row | {"of_a_copy": round(row["copy_us"] / ours, 3), "to_torch": round(best / ours, 2)}


def us(seconds: float) -> float:
    return round(1e6 * seconds, 2)
