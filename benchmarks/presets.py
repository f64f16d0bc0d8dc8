"""Train every preset on MNIST, as its recipe says, and keep the README's figures.

FASTVAE_DATA=DIR python benchmarks/presets.py benchmarks/results/presets-mnist-cpu.json
FASTVAE_DATA=DIR python benchmarks/presets.py benchmarks/results/presets-mnist-binarized-cpu.json --of binarized
FASTVAE_DATA=DIR python benchmarks/presets.py benchmarks/results/presets-mnist-fp16-cpu.json --of fp16
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

import tyro

from fastvae.models import PRESETS

# Not iwae: its 3,280 epochs take hours. Not what is for other pictures.
MLPS = [name for name, preset in PRESETS.items() if preset.network == "mlp" and name != "iwae"]
RUNS = {
    # The published figure (105.6) is held to in each precision.
    "recipes": [*((preset, "fp32") for preset in MLPS), ("classic", "bf16")],
    "fp16": [("classic", "fp16")],  # emulated by CPUs of today, hence apart: its time says nothing
    # On pixels drawn anew at each step, where a likelihood is of such pixels.
    "binarized": [
        *((preset, "fp32") for preset in MLPS if PRESETS[preset].likelihood == "bernoulli"), ("conv28", "fp32"),
    ],
}  # fmt: skip


def measure(preset, precision, binarize):
    """One real run: its settings and device, the last test loss, the median time of an epoch."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        flags = ["--preset", preset, "--precision", precision, "--data", "mnist", "--out", str(out)]
        flags += ["--binarize", "True"] if binarize else []
        subprocess.run([sys.executable, "-m", "fastvae.train", *flags], check=True)
        config = json.loads((out / "config.json").read_text())
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    rates = [line["images_per_s"] for line in lines if line["split"] == "train"]
    seconds = statistics.median(config["data"]["train"] / rate for rate in rates)
    last = {term: round(lines[-1][term], 3) for term in ("loss", "nll", "kl")}
    settings = {key: config["settings"][key] for key in ("epochs", "batch_size", "lr", "seed")}
    return {"preset": preset, "precision": precision, **settings, "test": last, "epoch_s": round(seconds, 3)}, config


def main(path: tyro.conf.Positional[Path], of: Literal["recipes", "fp16", "binarized"] = "recipes") -> None:
    """Train them.

    Args:
        path: the file of the figures.
        of: which runs: as the presets say, in fp16, or on binarised pixels, conv28 too.
    """
    results = []
    for preset, precision in RUNS[of]:
        result, config = measure(preset, precision, of == "binarized")
        results.append(result)
        content = {"device": config["device"], "versions": config["versions"], "data": "mnist", "runs": results}
        path.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
