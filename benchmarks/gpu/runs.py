"""Runs of ``fastvae train`` for other sections."""

import json
import statistics
import time
from typing import Any

from .section import Section


def train(section: Section, name: str, *flags: str) -> dict[str, Any] | None:
    """Train by the command line, into the folder NAME. Returns the run's figures, or None if it failed.

    ``loss`` is the last test loss, ``epoch_s`` the median time of an epoch, ``training_s`` the sum over all epochs, and
    ``seconds`` the time of the whole command, with imports, autotuning, captures and figures.
    """
    out = section.folder / name
    arguments = ["train", *section.data_flags, *section.device_flags, "--out", str(out), *flags]
    started = time.perf_counter()
    done = section.fastvae(name, *arguments).wait()
    seconds = time.perf_counter() - started
    if done.status != 0:
        section.fail(f"{name}: status {done.status}: {done.last_line}")
        return None
    images = json.loads((out / "config.json").read_text())["data"]["train"]
    lines = [json.loads(text) for text in (out / "metrics.jsonl").read_text().splitlines()]
    spent = [images / each["images_per_s"] for each in lines if each["split"] == "train"]
    return {
        "loss": round(lines[-1]["loss"], 3),
        "epochs": len(spent),
        "epoch_s": round(statistics.median(spent), 3),
        "training_s": round(sum(spent), 2),
        "seconds": round(seconds, 1),
    }
