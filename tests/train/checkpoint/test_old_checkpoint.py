"""A checkpoint that was committed once is read for ever: the run goes on as if it had never stopped.

These were made before the decay of averaged weights had a warm-up: their averages, and so their test losses, begin
further back, and catch up.

This file made its folder, when the format was new: `python tests/train/checkpoint/test_old_checkpoint.py`. A later
format gets a folder of its own, and this one stays.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import fastvae
from fastvae.train.checkpoint import checkpoint

KEPT = Path(__file__).parent / "checkpoints"
STEP = 13  # of 8 in an epoch


def train(out, **settings):
    torch.manual_seed(4)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    decoder = nn.Sequential(nn.Linear(2, 16), nn.Unflatten(1, (1, 4, 4)))
    images = torch.arange(60 * 16).mul(37).remainder(251).to(torch.uint8).view(60, 1, 4, 4)
    config = fastvae.TrainConfig(
        epochs=4, batch_size=7, precision="fp64", ema=0.9, schedule="step", decay_epochs=1, clip_norm=50.0,
        execution="eager", autotune=False, device="cpu", seed=2**40, out=out, **settings,
    )  # fmt: skip
    return fastvae.Trainer(fastvae.VAE(encoder, decoder, latent_shape=2), images, config, quiet=True).fit()


@pytest.mark.parametrize("name", ["format-2", "format-3"])
def test_it_goes_on(name, tmp_path):
    folder = Path(shutil.copytree(KEPT / name, tmp_path / "old"))
    assert [path.name for path in (folder / "checkpoints").iterdir()] == [f"step-{STEP:09d}.safetensors"]
    assert train(folder, resume=True).status == 0
    whole = train(tmp_path / "whole")
    lines = [(run / "metrics.jsonl").read_text().splitlines() for run in (folder, whole.folder)]
    for old, new in (map(json.loads, both) for both in zip(*lines, strict=True)):
        for term in ("loss", "nll", "kl") if old["split"] == "train" else ():
            assert old[term] == pytest.approx(new[term], rel=1e-9)
    gaps = [json.loads(old)["loss"] - json.loads(new)["loss"] for old, new in zip(*lines, strict=True)][1::2]
    assert max(map(abs, gaps[2:])) < 1e-3 < abs(gaps[0])
    (_, old, _), (_, new, _) = (checkpoint.newest(run / "checkpoints") for run in (folder, whole.folder))
    assert old.tensors.keys() == new.tensors.keys()
    for key in new.tensors.keys() - {"generator.cpu"}:  # which neither format had, and this model draws nothing from
        bound = 1e-3 if key.startswith("ema.") else 1e-12
        torch.testing.assert_close(old.tensors[key], new.tensors[key], rtol=1e-9, atol=bound)


if __name__ == "__main__":
    made = KEPT / f"format-{checkpoint.FORMAT}"
    if made.exists():
        sys.exit(f"{made} is there: it has to stay as it is")
    os.chdir(KEPT)
    train(made.name, max_steps=STEP)
    for path in made.iterdir():
        if path.name not in ("config.json", "metrics.jsonl", "checkpoints"):
            path.unlink()
    (made / "checkpoints" / "best.safetensors").unlink()
