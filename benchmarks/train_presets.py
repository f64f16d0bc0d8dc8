"""Train every preset on MNIST by its recipe, and record the figures of the README.

FASTVAE_DATA=DIR python benchmarks/train_presets.py benchmarks/results/presets-mnist-cpu.json
FASTVAE_DATA=DIR python benchmarks/train_presets.py benchmarks/results/presets-mnist-binarized-cpu.json --of binarized
FASTVAE_DATA=DIR python benchmarks/train_presets.py benchmarks/results/presets-mnist-fp16-cpu.json --of fp16
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

# Without iwae, whose 3,280 epochs take hours, and without presets for other images.
MLPS = [name for name, preset in PRESETS.items() if preset.network == "mlp" and name != "iwae"]
RUNS = {
    # classic must reach its published test loss (105.6) in each precision.
    "recipes": [*((preset, "fp32") for preset in MLPS), ("classic", "bf16")],
    "fp16": [("classic", "fp16")],  # apart, because today's CPUs emulate fp16 and its time says nothing
    # Pixels binarised anew at each step, for presets with a Bernoulli likelihood.
    "binarized": [
        *((preset, "fp32") for preset in MLPS if PRESETS[preset].likelihood == "bernoulli"), ("conv28", "fp32"),
    ],
}  # fmt: skip


def measure(preset, precision, binarize):
    """Train once. Returns settings, last test loss and median time of an epoch, and the run's config."""
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
    """Train the presets.

    Args:
        path: JSON file to write.
        of: set of runs: the presets' recipes, classic in fp16, or Bernoulli presets and conv28 on binarised pixels.
    """
    results = []
    for preset, precision in RUNS[of]:
        result, config = measure(preset, precision, of == "binarized")
        results.append(result)
        content = {"device": config["device"], "versions": config["versions"], "data": "mnist", "runs": results}
        path.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
