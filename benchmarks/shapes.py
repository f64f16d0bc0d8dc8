"""Train ``conv64`` by the command line on a folder of JPEGs through DALI, and keep figures and reconstructions.

The JPEGs are generated: ellipses and rectangles in random colours on random gradients, wider than high.

OMP_NUM_THREADS=1 python benchmarks/shapes.py benchmarks/results/shapes-cpu.json docs/shapes.png
"""

import json
import math
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tyro
from PIL import Image, ImageDraw

from fastvae.ops import bits_per_dimension

COUNT, HEIGHT, WIDTH = 6000, 96, 128
FLAGS = ["--preset", "conv64", "--loader", "dali", "--width", "16", "--batch-size", "16", "--epochs", "10"]


def picture(seed):
    """Draw a gradient from one colour to another, with one to three shapes on it."""
    draws = np.random.default_rng(seed)
    top, bottom = draws.integers(0, 256, (2, 3))
    share = np.linspace(0, 1, HEIGHT)[:, None, None]
    made = Image.fromarray(np.broadcast_to((1 - share) * top + share * bottom, (HEIGHT, WIDTH, 3)).astype(np.uint8))
    canvas = ImageDraw.Draw(made)
    for _ in range(draws.integers(1, 4)):
        x, y = (int(place) for place in draws.integers(0, (WIDTH, HEIGHT)))
        half = int(draws.integers(HEIGHT // 16, HEIGHT // 4))
        draw = canvas.ellipse if draws.random() < 0.5 else canvas.rectangle
        draw((x - half, y - half, x + half, y + half), fill=tuple(draws.integers(0, 256, 3).tolist()))
    return made


def main(figures: tyro.conf.Positional[Path], pictures: tyro.conf.Positional[Path]) -> None:
    """Make the JPEGs and train.

    Args:
        figures: JSON file to write.
        pictures: PNG file to write: test images above their reconstructions.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "shapes"
        out = Path(temporary) / "run"
        folder.mkdir()
        for index in range(COUNT):
            picture(index).save(folder / f"{index:06d}.jpg", quality=90)
        subprocess.run(
            [sys.executable, "-m", "fastvae.train", "--data", str(folder), *FLAGS, "--out", str(out)], check=True
        )
        config = json.loads((out / "config.json").read_text())
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        shutil.copy(out / "reconstructions.png", pictures)
    content = {
        "device": config["device"],
        "versions": config["versions"],
        "flags": FLAGS,
        "images": config["data"]["train"],
        "test": {term: round(lines[-1][term], 3) for term in ("loss", "nll", "kl")},
        "bits_per_dimension": round(bits_per_dimension(lines[-1]["loss"], math.prod(config["data"]["shape"])), 3),
        "images_per_s": [round(line["images_per_s"], 1) for line in lines if line["split"] == "train"],
    }
    figures.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
