"""A run's folder: TensorBoard after a resume, the lines of metrics.jsonl, what a start that fails leaves behind."""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fastvae.data import Dataset
from fastvae.train.config import TrainConfig, resolve
from fastvae.train.distributed.world import World
from fastvae.train.report.metrics import Metrics
from fastvae.train.report.run_config import description_of, read_config
from fastvae.train.report.run_folder import RunFolder, default_path
from fastvae.utils.errors import InputError

ALONE = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))
IMAGES = torch.zeros(9, 1, 8, 8, dtype=torch.uint8)


def opened(tmp_path, *, resume=False, **settings):
    config = resolve(TrainConfig(out=tmp_path / "run", device="cpu", **settings))
    folder = RunFolder(tmp_path / "run", resume=resume)
    folder.describe(description_of(config, Dataset("made", IMAGES, IMAGES[:4]), ALONE))
    return folder


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


def test_paths_are_kept_as_absolute_ones_and_names_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for data, kept in (("digits", "digits"), ("pics", f"{tmp_path}/pics"), ("torchvision:SVHN", "torchvision:SVHN")):
        config = resolve(TrainConfig(data=data, data_dir="files", cache="c"))
        settings = description_of(config, Dataset("made", IMAGES, IMAGES[:4]), ALONE)["settings"]
        assert settings["data"] == kept
        assert (settings["cache"], settings["data_dir"]) == (f"{tmp_path}/c", "files")
    own = description_of(
        resolve(TrainConfig(data="your images")), Dataset("made", IMAGES, IMAGES), ALONE, own_data=True
    )
    assert own["settings"]["data"] == "your images"


def test_a_start_that_is_abandoned_leaves_nothing_behind(tmp_path):
    for described in (False, True):
        folder = RunFolder(tmp_path / "a" / "b" / "run")
        if described:
            folder.describe({})
            folder.scalars("train", terms(1), 1)
        folder.abandon()
        assert list(tmp_path.iterdir()) == []


def test_files_of_somebody_else_are_left_alone(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes").write_text("mine")
    folder = RunFolder(tmp_path / "run")
    folder.describe({})
    folder.abandon()
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["notes"]


def test_a_run_that_is_resumed_in_vain_keeps_its_settings(tmp_path):
    opened(tmp_path, seed=3).close()
    before = (tmp_path / "run" / "config.json").read_text()
    folder = opened(tmp_path, resume=True, seed=4)
    assert read_config(tmp_path / "run")["settings"]["seed"] == 4
    folder.abandon()
    assert (tmp_path / "run" / "config.json").read_text() == before


def test_a_run_without_a_checkpoint_does_not_occupy_its_folder(tmp_path):
    opened(tmp_path, seed=3).close()
    folder = opened(tmp_path, seed=4)
    assert folder.is_restart
    folder.checkpoints.mkdir()
    (folder.checkpoints / "step-000000001.safetensors").touch()
    folder.close()
    with pytest.raises(InputError, match="already holds a run"):
        opened(tmp_path)


def test_on_a_file_system_without_locks_it_does(tmp_path, monkeypatch):
    opened(tmp_path).close()
    monkeypatch.setattr("fastvae.utils.lock.take_lock", lambda _: (_ for _ in ()).throw(OSError("no locks")))
    with pytest.raises(InputError, match="already holds a run"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("data", "own_model", "name"),
    [
        ("your images", False, "classic-your-images"),
        ("a/b c/img[red].npy", True, "model-img-red"),
        ("pics/", False, "classic-pics"),
        ("torchvision:SVHN", False, "classic-torchvision-SVHN"),
        ("\x1b[31m", False, "classic-31m"),
        ("Bärte", False, "classic-Bärte"),
        ("x" * 300, False, f"classic-{'x' * 60}"),
        ("..", False, "classic-images"),
    ],
)
def test_the_default_name_is_a_plain_one(data, own_model, name):
    path = default_path(TrainConfig(data=data), own_model=own_model)
    assert re.fullmatch(rf"runs/{name}-\d{{8}}-\d{{6}}", str(path))


def test_starts_of_the_same_second_have_a_folder_each(tmp_path):
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: RunFolder.beside_others(tmp_path / "runs" / "x"), range(8)))
    assert sorted(folder.path.name for folder in made) == sorted(["x", *(f"x-{number}" for number in range(2, 9))])
    for folder in made:
        folder.abandon()
    assert list((tmp_path / "runs").iterdir()) == []


def test_the_default_place_is_a_file(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(InputError, match=r"cannot write to .*choose another --out"):
        RunFolder.beside_others(tmp_path / "runs" / "x")


@pytest.mark.parametrize("name", ["metrics.jsonl", "checkpoints", "config.json"])
def test_a_folder_with_somebody_elses_files_is_refused_and_left_alone(tmp_path, name):
    (tmp_path / "events.out.tfevents.1.mine").write_text("mine")
    if name == "checkpoints":
        (tmp_path / name).mkdir()
        (tmp_path / name / "step-000000012.safetensors").write_text("mine")
    else:
        (tmp_path / name).write_text('{"architectures": ["VAE"]}')
    before = sorted(path.name for path in tmp_path.rglob("*"))
    with pytest.raises(InputError, match=f"{name}|settings"):
        RunFolder(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_a_start_that_is_given_up_removes_its_own_files_alone(tmp_path):
    (tmp_path / "events.out.tfevents.1.mine").write_text("mine")
    folder = RunFolder(tmp_path)
    folder.metrics_file.write_text("")
    folder.abandon()
    assert [path.name for path in tmp_path.iterdir()] == ["events.out.tfevents.1.mine"]


@pytest.mark.parametrize(("data", "data_dir", "kept"), [("mnist", None, "/data"), ("mnist", "/mine", "/mine")])
def test_a_run_remembers_the_folder_that_the_environment_named(data, data_dir, kept, monkeypatch):
    monkeypatch.setenv("FASTVAE_DATA", "/data")
    config = TrainConfig(data=data, data_dir=data_dir)
    assert description_of(config, Dataset("made", IMAGES, IMAGES[:4]), ALONE)["settings"]["data_dir"] == kept


def test_a_path_of_images_needs_no_folder_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("FASTVAE_DATA", "/data")
    config = TrainConfig(data=str(tmp_path))
    assert description_of(config, Dataset("made", IMAGES, IMAGES[:4]), ALONE)["settings"]["data_dir"] is None
