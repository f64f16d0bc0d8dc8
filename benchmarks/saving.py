"""The cost of a checkpoint every 50 steps, on the disk of the current folder.

A run saves every 100 steps, so that every second window of 50 steps contains a save. Each is compared with the window
before it, only seconds earlier. Work between epochs is left out.

FASTVAE_DATA=DIR python benchmarks/saving.py benchmarks/results/saving-cpu.json
"""

import json
import random
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import torch
import tyro

from fastvae.train.config import TrainConfig, resolve
from fastvae.train.loop import Loop
from fastvae.train.measure.autotune import has_fast_bf16
from fastvae.train.run import run
from fastvae.utils.machine import device_name

PRESET, EVERY, DRAWS = "leaky", 50, 2000
PAIRS = {100: 120, 1024: 20}


class Clock:
    """A clock of training time at the end of each window, before a checkpoint is saved."""

    def __init__(self):
        self.ends = []
        self.between = 0.0

    def install(self):
        """Patch the training loop for all runs from now on."""
        count = Loop._count
        finish = Loop._finish_epoch

        def noted(loop, *arguments):
            if (loop.step + 1) % EVERY == 0:
                self.ends.append(time.perf_counter() - self.between)
            count(loop, *arguments)

        def left_out(loop, *arguments):
            begun = time.perf_counter()
            finish(loop, *arguments)
            self.between += time.perf_counter() - begun

        Loop._count = noted
        Loop._finish_epoch = left_out


def windows(clock, precision, batch_size, pairs):
    """Return the seconds of windows without a save, and of the windows after them, which begin with one."""
    steps = EVERY * 2 * (pairs + 1)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        config = TrainConfig(
            preset=PRESET, data="mnist", batch_size=batch_size, epochs=100, max_steps=steps, checkpoint_every=2 * EVERY,
            precision=precision, execution="traced", autotune=False, device="cpu", out=Path(folder) / "run",
        )  # fmt: skip
        clock.ends = []
        outcome = run(resolve(config), quiet=True)
        written = len(list((outcome.folder / "checkpoints").iterdir()))
    assert written > 1, "nothing was saved"
    seconds = [end - begin for begin, end in pairwise(clock.ends)]
    return seconds[0::2][:pairs], seconds[1::2][:pairs]


def interval(ratios):
    """Return the 95 % bootstrap interval of the median of ``ratios``."""
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(DRAWS))
    return [round(medians[place], 3) for place in (DRAWS // 40, DRAWS - DRAWS // 40)]


def main(path: tyro.conf.Positional[Path]) -> None:
    """Measure the median window with and without a save, and the median ratio of neighbours.

    Args:
        path: JSON file to write.
    """
    precision = "bf16" if has_fast_bf16(torch.device("cpu")) else "fp32"
    clock = Clock()
    rows = []
    clock.install()
    for batch_size, pairs in PAIRS.items():
        plain, saving = windows(clock, precision, batch_size, pairs)
        ratios = [after / before for before, after in zip(plain, saving, strict=True)]
        rows.append(
            {
                "batch_size": batch_size,
                "precision": precision,
                "pairs": len(ratios),
                "plain_s": round(statistics.median(plain), 4),
                "saving_s": round(statistics.median(saving), 4),
                "ratio": round(statistics.median(ratios), 3),
                "interval": interval(ratios),
            }
        )
        print(rows[-1], flush=True)
    versions = {
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
    content = {"device": device_name(torch.device("cpu")), "versions": versions, "preset": PRESET, "every": EVERY}
    path.write_text(json.dumps({**content, "runs": rows}, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
