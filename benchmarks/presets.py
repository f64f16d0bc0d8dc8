"""Train every preset on MNIST, as its recipe says, and keep the README's figures.

FASTVAE_DATA=DIR python benchmarks/presets.py benchmarks/results/presets-mnist-cpu.json
FASTVAE_DATA=DIR python benchmarks/presets.py benchmarks/results/presets-mnist-binarized-cpu.json --binarize
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import tyro

from fastvae.models import PRESETS

# The published figure (105.6) is held to in each precision.
# Not iwae: its 3,280 epochs take hours. Not what is for other pictures.
MLPS = [name for name, preset in PRESETS.items() if preset.network == "mlp" and name != "iwae"]
RUNS = [(preset, "fp32") for preset in MLPS] + [("classic", "bf16")]
# On pixels drawn anew at each step, where a likelihood is of such pixels.
BINARIZED = [(preset, "fp32") for preset in MLPS if PRESETS[preset].likelihood == "bernoulli"] + [("conv28", "fp32")]


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


def main(path: tyro.conf.Positional[Path], binarize: bool = False) -> None:
    """Train them.

    Args:
        path: the file of the figures.
        binarize: on binarised pixels, and conv28 too.
    """
    results = []
    for preset, precision in BINARIZED if binarize else RUNS:
        result, config = measure(preset, precision, binarize)
        results.append(result)
        content = {"device": config["device"], "versions": config["versions"], "data": "mnist", "runs": results}
        path.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
