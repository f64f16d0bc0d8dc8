"""Plot the speed of fastvae's operations relative to torch.compile and eager, and print it as rows of a table.

The input is a JSON file of ``make bench``:

python benchmarks/plot.py benchmarks/results/ops-cpu.json docs/ops.png
"""

import json
import statistics
from pathlib import Path

import matplotlib.pyplot as plt
import tyro


def groups(results: dict) -> dict[str, dict[str, float]]:
    """Return the median seconds of each contender, by group, for the groups that include torch.compile."""
    medians: dict[str, dict[str, float]] = {}
    for bench in results["benchmarks"]:
        info = bench["extra_info"]
        if "copy_s" in info and "not_captured" not in info:  # not captured: it has only a wall time
            medians.setdefault(bench["group"].partition(", ")[0], {})[info["name"]] = statistics.median(
                bench["stats"]["data"]
            )
    return {group: members for group, members in medians.items() if "torch.compile" in members}


def best(medians: dict[str, float], kind: str) -> float:
    """Return the seconds of the fastest contender of a kind, "eager" or "torch.compile"."""
    return min(seconds for name, seconds in medians.items() if name.startswith(kind))


def row(group: str, medians: dict[str, float]) -> str:
    """Format a group as a row of the README's table."""
    ours = medians["fastvae"]
    ratios = (f"{best(medians, kind) / ours:.1f}x" for kind in ("eager", "torch.compile"))
    return f"| {group} | {1e3 * ours:.3f} | {' | '.join(ratios)} |"


def main(source: Path, picture: Path, /) -> None:
    """Read the JSON file SOURCE and write the plot PICTURE."""
    results = json.loads(source.read_text())
    medians = groups(results)
    names = list(medians)[::-1]
    figure, axes = plt.subplots(figsize=(8, 0.34 * len(names) + 1.2), layout="constrained")
    for offset, label, kind in ((0.2, "the fastest eager spelling", "eager"), (-0.2, "torch.compile", "torch.compile")):
        ratios = [best(medians[group], kind) / medians[group]["fastvae"] for group in names]
        bars = axes.barh([at + offset for at in range(len(names))], ratios, height=0.4, label=label)
        axes.bar_label(bars, fmt="%.1f", padding=2, fontsize=7)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xscale("log")
    axes.margins(x=0.1, y=0.01)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("times faster, forward and backward (binarize has no backward)")
    axes.set_title(f"fastvae on {results['machine_info']['device']}, against", fontsize=9)
    axes.legend(loc="upper right", fontsize=8)
    figure.savefig(picture, dpi=110)
    print("\n".join(row(group, medians[group]) for group in medians))


if __name__ == "__main__":
    tyro.cli(main)
