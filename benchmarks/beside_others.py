"""Images per second of runs alone, beside a busy loop, and two at once, on the same cores: `leaky`, MNIST, bf16.

FASTVAE_DATA=DIR python benchmarks/beside_others.py benchmarks/results/beside-others-cpu.json
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import tyro
from rich.table import Table

from fastvae._command import WAITING
from fastvae.utils.files import write_text
from fastvae.utils.terminal import Terminal

SECONDS = 8  # of a run's training and evaluation
FLAGS = ["--preset=leaky", "--data=mnist", "--precision=bf16", "--execution=traced", f"--time-budget={SECONDS}"]
SCRIPT = f"""
import sys, IMPORTS
from fastvae.models import PRESETS, build
config = fastvae.TrainConfig(
    preset="leaky", precision="bf16", execution="traced", time_budget={SECONDS}, epochs=9999, out=sys.argv[1]
)
fastvae.Trainer(build(PRESETS["leaky"], (1, 28, 28)), "mnist", config, quiet=True).fit()
"""
COMMAND = [sys.executable, "-m", "fastvae.train", *FLAGS, "--epochs=9999", "--out"]
# What is started, and what is set in its environment. The last is how fastvae was before it chose either.
STARTS = {
    "fastvae train": (COMMAND, {}),
    "fastvae train --nproc 2": ([*COMMAND[:-1], "--nproc=2", "--out"], {}),
    "script, fastvae first": ([sys.executable, "-c", SCRIPT.replace("IMPORTS", "fastvae, torch")], {}),
    "script, torch first, variable set": (
        [sys.executable, "-c", SCRIPT.replace("IMPORTS", "torch, fastvae")],
        {"GOMP_SPINCOUNT": "1000"},
    ),
    "before: libgomp's waits, all cores": (
        COMMAND,
        {"GOMP_SPINCOUNT": "300000", "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0)))},
    ),
}
LOOP = [sys.executable, "-c", "while True: pass"]


def rates(start: str, count: int) -> list[float]:
    """Return the images per second of so many runs that are started at once."""
    command, variables = STARTS[start]
    environment = {name: value for name, value in os.environ.items() if name not in (*WAITING, "OMP_NUM_THREADS")}
    with tempfile.TemporaryDirectory() as folder:
        outs = [Path(folder) / str(number) for number in range(count)]
        running = [
            subprocess.Popen([*command, str(out)], env=environment | variables, stdout=subprocess.DEVNULL)
            for out in outs
        ]
        for process in running:
            if process.wait() != 0:
                raise SystemExit(f"{start} has ended with status {process.returncode}")
        return [_rate((out / "metrics.jsonl").read_text()) for out in outs]


def _rate(metrics: str) -> float:
    """Return the images per second over all epochs of a run, the last of which may be a part of one."""
    lines = [line for line in map(json.loads, metrics.splitlines()) if line["split"] == "train"]
    steps = [after - before for before, after in pairwise([0, *(line["step"] for line in lines)])]
    return sum(steps) / sum(count / line["images_per_s"] for count, line in zip(steps, lines, strict=True))


def measure(start: str, pairs: int) -> dict[str, object]:
    """Run alone, beside a loop and in pairs, in turns."""
    alone = []
    beside = []
    twos = []
    for turn in range(pairs):
        twos.append(rates(start, 2))
        if turn % 3 == 0:
            alone += rates(start, 1)
            with ExitStack() as stack:
                loop = stack.enter_context(subprocess.Popen(LOOP))
                stack.callback(loop.kill)
                beside += rates(start, 1)
    return {"start": start, "alone": alone, "beside_a_loop": beside, "pairs": twos}


def main(path: tyro.conf.Positional[Path], pairs: int = 10, only: tuple[str, ...] = tuple(STARTS)) -> None:
    """Measure each way to start a run, print a table and write all rates.

    Args:
        path: JSON file to write.
        pairs: pairs of runs at once; every third time, also a run alone and one beside a loop.
        only: the ways to start it.
    """
    console = Terminal()
    table = Table("images/s, medians", "alone", "beside a busy loop", "two at once, each", "the slowest of all pairs")
    rows = []
    for start in only:
        row = measure(start, pairs)
        alone = statistics.median(row["alone"])
        each = [rate for pair in row["pairs"] for rate in pair]
        shown = (statistics.median(row["beside_a_loop"]), statistics.median(each), min(each))
        table.add_row(start, f"{alone:,.0f}", *(f"{rate:,.0f} ({rate / alone:.2f})" for rate in shown))
        rows.append(row)
        write_text(path, json.dumps({"seconds": SECONDS, "rows": rows}, indent=1) + "\n")
    console.print(table)


if __name__ == "__main__":
    tyro.cli(main)
