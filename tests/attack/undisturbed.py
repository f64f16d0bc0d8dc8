"""The undisturbed runs that cases copy and spoil: one of three epochs, and one of four to compare resumed runs with."""

from pathlib import Path

# Import everything that commands import before forking: otherwise each process would spend seconds on it.
import torch
import torch._dynamo
import torchvision.datasets
import torchvision.transforms.v2.functional
import torchvision.utils  # noqa: F401
from place import Place
from watch import Watched

import fastvae.bench.config
import fastvae.cli
import fastvae.evaluate.cli
import fastvae.train.run  # noqa: F401
from fastvae.train.checkpoint import checkpoint

TRAIN = ("fastvae", "train", "--device", "cpu", "--deterministic", "--no-autotune", "--precision", "fp32")
RESUME = (*TRAIN, "--epochs", "4", "--out", "run", "--resume")


def make(folder: Path) -> Path:
    """Train the runs that cases start from, and return their folder."""
    (folder / "matplotlib").mkdir(parents=True)
    place = Place(folder / "made", folder)
    for name, command in (
        ("run", (*TRAIN, "--epochs", "3", "--out", "../../run")),
        ("resumed", (*TRAIN, "--epochs", "4", "--out", "../../resumed")),
    ):
        outcome = Watched(place, command, fresh=False).end(120.0, None)
        if outcome.status != 0:
            raise SystemExit(f"the undisturbed run {name!r} failed: {outcome.stdout}{outcome.stderr}")
    return folder


def went_on(place: Place, _: object) -> str | None:
    """Check that a resumed run has the weights of the run that was never stopped."""
    kept = [
        checkpoint.newest(folder / "checkpoints")[1] for folder in (place.work / "run", place.templates / "resumed")
    ]
    weights = [found.part("model") for found in kept]
    if weights[0].keys() == weights[1].keys() and all(
        torch.equal(weights[0][name], weights[1][name]) for name in weights[0]
    ):
        return None
    return "the weights are not those of the undisturbed run"
