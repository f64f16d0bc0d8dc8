"""A run's folder: TensorBoard after a resume, the lines of metrics.jsonl, settings that may not change."""

import json

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fastvae.data import Dataset
from fastvae.train.config import TrainConfig, resolve
from fastvae.train.config.resume_check import check_resumable
from fastvae.train.distributed.world import World
from fastvae.train.report.metrics import Metrics
from fastvae.train.report.run_folder import RunFolder, read_config
from fastvae.utils.errors import InputError

ALONE = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))
IMAGES = torch.zeros(9, 1, 8, 8, dtype=torch.uint8)
FIXED = {
    "preset": "deep", "data": "mnist", "batch_size": 7, "optimizer": "sgd", "lr": 0.5, "schedule": "cosine",
    "warmup_steps": 3, "clip_norm": 2.0, "ema": 0.5, "latent_dim": 3, "beta": 2.0, "objective": "iwae",
    "binarize": True, "seed": 4, "flip": True, "channels": 1, "image_size": 16, "on_bad_image": "skip",
}  # fmt: skip
FREE = {
    "epochs": 3, "max_steps": 5, "precision": "fp64", "execution": "eager", "accumulate": 2, "backend": "reference",
    "replay": "no", "checkpoint_every": 3, "patience": 2, "workers": 1, "profile": True, "on_nonfinite": "skip",
}  # fmt: skip


def opened(tmp_path, **settings):
    config = resolve(TrainConfig(out=tmp_path / "run", device="cpu", **settings))
    return RunFolder(tmp_path / "run", config, Dataset("made", IMAGES, IMAGES[:4]), ALONE)


def terms(number):
    return Metrics(loss=3.0 * number, nll=2.0 * number, kl=1.0 * number)


def test_what_was_logged_after_the_checkpoint_is_forgotten_and_nothing_else(tmp_path):
    folder = opened(tmp_path)
    for step in range(1, 7):
        folder.log(1 + (step > 3), step, "train", terms(step), 100.0)
        folder.scalars("train", terms(step), step)
    folder.scalars("test", terms(3), 3)
    folder.close()
    folder = opened(tmp_path, resume=True)
    folder.forget_after(4, 2)
    folder.log(2, 5, "train", terms(50), 100.0)
    folder.scalars("train", terms(50), 5)
    folder.close()

    events = EventAccumulator(str(tmp_path / "run")).Reload()
    names = {"Total Loss": 3.0, "Reconstruction Error": 2.0, "KL-Divergence": 1.0}
    for name, factor in names.items():
        shown = [(event.step, event.value) for event in events.Scalars(f"Train/{name}")]
        assert shown == [(step, factor * (50 if step == 5 else step)) for step in (1, 2, 3, 4, 5)]
        assert [(event.step, event.value) for event in events.Scalars(f"Test/{name}")] == [(3, 3 * factor)]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [(line["epoch"], line["step"], line["loss"]) for line in lines] == [
        (1, 1, 3.0), (1, 2, 6.0), (1, 3, 9.0), (2, 4, 12.0), (2, 5, 150.0),
    ]  # fmt: skip


def test_lines_of_an_unfinished_epoch_are_forgotten(tmp_path):
    folder = opened(tmp_path)
    for epoch, step in ((1, 3), (2, 4)):
        folder.log(epoch, step, "test", terms(step), 1.0)
    folder.forget_after(4, 1)
    assert [line["step"] for line in folder.metrics()] == [3]
    folder.close()


def test_a_line_has_every_figure_under_its_name(tmp_path):
    folder = opened(tmp_path)
    folder.log(2, 9, "test", Metrics(loss=6.0, nll=4.0, kl=2.0), 123.5)
    folder.close()
    (line,) = folder.metrics()
    assert line == {
        "epoch": 2, "step": 9, "split": "test", "loss": 6.0, "nll": 4.0, "kl": 2.0, "images_per_s": 123.5,
    }  # fmt: skip


def test_the_settings_name_the_data(tmp_path):
    opened(tmp_path, seed=3).close()
    kept = json.loads((tmp_path / "run" / "config.json").read_text())
    assert kept["data"] == {"shape": [1, 8, 8], "train": 9, "test": 4}
    assert (kept["settings"]["seed"], kept["world_size"], kept["own_model"]) == (3, 1, False)
    assert read_config(tmp_path / "run")["settings"]["seed"] == 3


def changed(name, value):
    needed = {"objective": {"samples": 2}, "preset": {"latent_dim": 20}}.get(name, {})
    return resolve(TrainConfig(device="cpu", **{name: value}, **needed))


def check_same(folder, config):
    check_resumable(folder, read_config(folder)["settings"], config)


@pytest.mark.parametrize("name", FIXED)
def test_what_decides_the_numbers_may_not_change(tmp_path, name):
    opened(tmp_path).close()
    with pytest.raises(InputError, match=rf"was trained with --{name.replace('_', '-')} .* not {FIXED[name]}"):
        check_same(tmp_path / "run", changed(name, FIXED[name]))


@pytest.mark.parametrize("name", FREE)
def test_the_rest_may(tmp_path, name):
    opened(tmp_path).close()
    check_same(tmp_path / "run", changed(name, FREE[name]))


def test_a_cosine_ends_where_it_did(tmp_path):
    opened(tmp_path, schedule="cosine", epochs=4).close()
    check_same(tmp_path / "run", resolve(TrainConfig(device="cpu", schedule="cosine", epochs=4)))
    for settings in ({"epochs": 5}, {"epochs": 4, "max_steps": 9}):
        with pytest.raises(InputError, match="use the same value, or another --out"):
            check_same(tmp_path / "run", resolve(TrainConfig(device="cpu", schedule="cosine", **settings)))
