"""Print the README's table of GPUs from results of `make gpu`: a column for each file, a row for each figure.

python benchmarks/gpu/table.py benchmarks/results/gpu-*.json
"""

import json
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Figures = dict[str, Any]  # of a section


def _versions(results: dict[str, Any]) -> str:
    return ", ".join(f"{name} {results['versions'][name]}" for name in ("torch", "triton", "CUDA"))


def _passed(results: dict[str, Any]) -> str:
    sections = results["sections"]
    others = [name for name, section in sections.items() if section["status"] != "passed"]
    return f"{len(sections) - len(others)} of {len(sections)}" + (f" (not {', '.join(others)})" if others else "")


def _accuracy(figures: Figures) -> str:
    return f"{figures['calls'] - figures['wrong']:,} of {figures['calls']:,}"


def _streams(figures: Figures) -> str:
    return f"{figures['calls'] - figures['differing']:,} of {figures['calls']:,}"


def _tests(figures: Figures) -> str:
    outcomes = figures["outcomes"]
    return f"{outcomes.get('passed', 0):,}, {outcomes.get('failed', 0):,} failed"


def _parity(figures: Figures) -> str:
    return figures["table"][-1] if figures["table"][-1] == "all agree" else "not all agree"


def _resume(figures: Figures) -> str:
    apart = [precision for precision, run in figures["runs"].items() if run["tensors_apart"]]
    return f"not in {', '.join(apart)}" if apart else f"yes ({', '.join(figures['runs'])})"


def _same_steps(figures: Figures) -> str:
    rows = figures["steps"]
    return f"{sum(not row['tensors_apart'] for row in rows)} of {len(rows)}"


def _step(figures: Figures) -> str:
    row = figures["steps"][0]
    return f"{row['step']}: {row['us']} us, {row['kernels']:.0f} kernels"


def _classic(figures: Figures) -> str:
    return ", ".join(f"{precision} {run['loss']:.2f}" for precision, run in figures["runs"].items())


def _leaky(figures: Figures) -> str:
    run = figures["run"]
    return f"{run['training_s']} s, {run['seconds']} s with start-up, test loss {run['loss']:.2f}"


def _loops(figures: Figures) -> str:
    comparison = figures["comparison"]
    ours = min(
        (loop for loop in comparison["contenders"] if loop["kind"] == "fastvae"), key=lambda loop: loop["median_s"]
    )
    return (
        f"{comparison['network']}: {1e6 * ours['median_s']:.0f} us a step, {ours['to_baseline']:.2f}x the tutorial, "
        f"{ours['to_torch']:.2f}x torch's fastest"
    )


def _share_of_a_copy(figures: Figures) -> str:
    shares = [row["of_a_copy"] for row in figures["ops"].values() if row["gb"] >= 1]
    return f"{statistics.median(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})"


# A row's name, its section, and the function that reads its cell.
ROWS: list[tuple[str, str, Callable[[Figures], str]]] = [
    ("compiled kernels within eager's own error", "accuracy", _accuracy),
    ("calls on two streams with the same bits", "streams", _streams),
    ("tests passed", "tests", _tests),
    ("parity with the eager loop", "parity", _parity),
    ("resumed runs have the same bits", "resume", _resume),
    ("kinds of steps whose replays have the same bits", "steps", _same_steps),
    ("a replayed step", "steps", _step),
    ("`classic` on MNIST, test loss (published: 105.6)", "classic", _classic),
    ("`leaky` on MNIST, 30 epochs", "leaky", _leaky),
    ("whole loops", "loops", _loops),
    ("operations of 1 to 4 GB: share of a copy's speed, median", "ops", _share_of_a_copy),
]


def cell(results: dict[str, Any], section: str, read: Callable[[Figures], str]) -> str:
    """Return the cell of a section, empty if the section did not get that far."""
    try:
        return read(results["sections"][section]["figures"])
    except (KeyError, IndexError, statistics.StatisticsError):
        return ""


def table(files: list[Path]) -> Iterator[str]:
    """Yield the lines of the table, in Markdown."""
    every = [json.loads(file.read_text()) for file in files]
    yield f"| | {' | '.join(results['device'] for results in every)} |"
    yield f"| --- |{' --- |' * len(every)}"
    yield f"| versions | {' | '.join(map(_versions, every))} |"
    yield f"| sections of `make gpu` that passed | {' | '.join(map(_passed, every))} |"
    for name, section, read in ROWS:
        yield f"| {name} | {' | '.join(cell(results, section, read) for results in every)} |"


if __name__ == "__main__":
    print("\n".join(table([Path(argument) for argument in sys.argv[1:]])))
