"""What a checkpoint every 50 steps costs: runs that save so and runs that do not, in turns, on the disk of the folder.

FASTVAE_DATA=DIR python benchmarks/saving.py benchmarks/results/saving-cpu.json
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from fastvae.train import checkpoint
from fastvae.train.config import TrainConfig, resolve
from fastvae.train.folder import device_name
from fastvae.train.loop import Loop
from fastvae.train.run import run

PRESET, EVERY, PAIRS = "leaky", 50, 9
STEPS = {100: 1200, 1024: 200}


class Clock:
    """Seconds of training, from the first step to the last byte written; and how many checkpoints were."""

    seconds, written = 0.0, 0


def timed(function):
    def call(loop):
        begun = time.perf_counter()
        status = function(loop)
        Clock.seconds = time.perf_counter() - begun
        return status

    return call


def counted(function):
    def call(*arguments):
        Clock.written += 1
        return function(*arguments)

    return call


def train(batch_size, steps, every):
    """Seconds of a run, and its checkpoints."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        config = TrainConfig(
            preset=PRESET, data="mnist", batch_size=batch_size, epochs=100, max_steps=steps, checkpoint_every=every,
            precision="bf16", execution="traced", autotune=False, device="cpu", out=Path(folder) / "run",
        )  # fmt: skip
        Clock.written = 0
        run(resolve(config), quiet=True)
        return Clock.seconds, Clock.written


def main(path):
    """The medians of pairs of runs, and of their ratios."""
    Loop.fit, checkpoint.save = timed(Loop.fit), counted(checkpoint.save)
    rows = []
    for batch_size, steps in STEPS.items():
        pairs = [(train(batch_size, steps, steps), train(batch_size, steps, EVERY)) for _ in range(PAIRS)]
        ratios = sorted(saving[0] / plain[0] for plain, saving in pairs)
        rows.append(
            {
                "batch_size": batch_size,
                "steps": steps,
                "plain_s": round(statistics.median(plain[0] for plain, _ in pairs), 3),
                "saving_s": round(statistics.median(saving[0] for _, saving in pairs), 3),
                "ratio": round(statistics.median(ratios), 3),
                "quartiles": [round(value, 3) for value in statistics.quantiles(ratios, n=4)[::2]],
                "checkpoints": statistics.median(saving[1] for _, saving in pairs),
            }
        )
        print(rows[-1])
    versions = {"torch": torch.__version__, "python": sys.version.split()[0]}
    content = {"device": device_name(torch.device("cpu")), "versions": versions, "preset": PRESET, "every": EVERY}
    Path(path).write_text(json.dumps({**content, "runs": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
