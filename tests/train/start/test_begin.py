"""Changing one's mind: how a run resumes with other settings, what is refused at once, and what that leaves behind."""

import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import fastvae
from fastvae.cli import run as command
from fastvae.nn import Categorical
from fastvae.train import Trainer
from fastvae.train.measure import autotune
from fastvae.utils.errors import InputError

from .conftest import IMAGES, make_model


def same(first, second):
    return first.tensors.keys() == second.tensors.keys() and all(
        torch.equal(tensor, second.tensors[name]) for name, tensor in first.tensors.items()
    )


def test_resume_alone_goes_on_as_it_was_to_the_bit(fit, last, described):
    settings = {"epochs": 4, "lr": 0.01, "beta": 2.0, "ema": 0.9, "schedule": "step", "decay_epochs": 1}
    whole = fit("whole", **settings)
    parts = fit("parts", **settings, max_steps=9)
    fit("parts", resume=True, model=make_model(seed=9))
    assert same(last(whole), last(parts))
    assert described(parts)["changes"] == [{"step": 9, "settings": {"max_steps": [9, None]}}]
    kept = described(parts)["settings"]
    assert {name: kept[name] for name in settings} == settings


def test_a_limit_holds_until_it_ended_the_run(fit, last):
    folder = fit(epochs=4, max_steps=9)
    assert last(folder).values["step"] == 9
    fit(resume=True, max_steps=11)
    assert last(folder).values["step"] == 11
    fit(resume=True)
    assert last(folder).values["step"] == 24


def test_a_longer_run_at_another_rate_is_recorded(fit, last, described, capsys):
    folder = fit()
    fit(resume=True, epochs=3, lr=0.5, quiet=False)
    assert last(folder).values["step"] == 18
    assert described(folder)["changes"] == [{"step": 12, "settings": {"epochs": [2, 3], "lr": [0.001, 0.5]}}]
    assert last(folder).values["optimizer"]["groups"][0]["lr"] == 0.5
    fit(resume=True, epochs=4)
    assert [change["step"] for change in described(folder)["changes"]] == [12, 18]
    assert described(folder)["settings"]["lr"] == 0.5


@pytest.mark.parametrize("steps", [6, 9])
def test_another_batch_size_goes_on_at_an_epochs_end_and_in_the_middle(fit, last, steps):
    folder = fit(epochs=4, max_steps=steps)
    fit(resume=True, batch_size=6)  # 9 steps in an epoch
    values = last(folder).values
    first = 6 if steps == 6 else 9 - 30 // 6  # of epoch 1
    assert (values["epoch"], values["step"]) == (4, first + 3 * 9)
    assert (values["batch_size"], values["origin"]) == (6, {"epoch": 1, "step": first})
    fit(resume=True, epochs=5, model=make_model(seed=9))
    assert last(folder).values["step"] == first + 4 * 9
    straight = fit("straight", epochs=5, batch_size=6)
    assert last(straight).values["step"] == 45


def test_images_that_changed_are_noticed_at_once(fit, tmp_path, capsys):
    folder = fit()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "lock"}
    with pytest.raises(
        InputError, match=r"started with 54 images for training and 6 .* has 45 images for training and 5"
    ):
        fit(resume=True, epochs=3, images=IMAGES[:50])
    assert before == {path: path.read_bytes() for path in before}
    capsys.readouterr()
    fit(resume=True, epochs=3, images=IMAGES.flip(0), quiet=False)
    assert "does not hold the images that" in capsys.readouterr().out.replace("\n", " ")


def test_files_that_changed_are_refused_and_moved_ones_are_found(tmp_path, monkeypatch, capsys, described):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", IMAGES.numpy())
    flags = ["--device", "cpu", "--no-autotune", "--precision", "fp32"]
    assert command(["train", *flags, "--data", "x.npy", "--epochs", "1", "--out", "run"]) == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert command(["evaluate", "../run"]) == 0
    shutil.move("../x.npy", "y.npy")
    capsys.readouterr()
    for flags in (["train", "--resume", "../run"], ["evaluate", "../run"]):
        assert command(flags) == 2
        assert re.search(
            r"x\.npy is not there, but .*run has its .*: name their place with --data", capsys.readouterr().err
        )
    assert command(["train", "--resume", "../run", "--data", "y.npy", "--epochs", "2", "--device", "cpu"]) == 0
    assert described(tmp_path / "run")["settings"]["data"] == str(elsewhere / "y.npy")
    assert command(["evaluate", "../run"]) == 0
    other = IMAGES.numpy().copy()
    other[7] += 1
    np.save("z.npy", other)
    capsys.readouterr()
    assert command(["train", "--resume", "../run", "--data", "z.npy", "--epochs", "3"]) == 2
    assert "has as many images as ../run was started with, but other ones" in capsys.readouterr().err
    assert command(["evaluate", "../run", "--data", "z.npy"]) == 0


def test_each_remedy_about_other_images_works_when_typed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pics").mkdir()
    for index in range(12):
        Image.fromarray(IMAGES.numpy()[index, 0].repeat(3, 0)).save(f"pics/{index}.png")
    np.save("x.npy", IMAGES.numpy())
    np.save("large.npy", IMAGES.numpy().repeat(2, 2).repeat(2, 3))
    np.save("few.npy", IMAGES.numpy()[:40])
    flags = ["--device", "cpu", "--no-autotune", "--precision", "fp32", "--epochs", "1"]
    assert command(["train", *flags, "--data", "x.npy", "--out", "run"]) == 0
    new = "leave --data out, or start a new run with another --out"
    for data, remedy in (
        ("pics", f"run was started with images that .* pics has pictures of any size: {new} and --image-size 64, say"),
        ("large.npy", rf"of \(1, 8, 8\): {new}$"),
        ("few.npy", f": {new} and --init-from run$"),
    ):
        capsys.readouterr()
        assert command(["train", "--resume", "run", "--data", data]) == 2
        assert re.search(remedy, capsys.readouterr().err.strip())
    capsys.readouterr()
    assert command(["train", "--resume", "run", "--latent-dim", "3"]) == 2
    assert capsys.readouterr().err.endswith("leave it out, or start a new run with another --out\n")
    assert command(["train", "--resume", "run"]) == 0
    assert command(["train", *flags, "--data", "pics", "--out", "a", "--image-size", "64"]) == 0
    assert command(["train", *flags, "--data", "large.npy", "--out", "b"]) == 0
    assert command(["train", *flags, "--data", "few.npy", "--out", "c", "--init-from", "run"]) == 0


def test_a_refusal_takes_no_trial_and_leaves_nothing_behind(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(autotune, "choose", lambda *_: pytest.fail("a trial"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    for flags in (
        ["--out", "file"],
        ["--out", "a/b", "--preset", "conv28", "--image-size", "30"],
        ["--data", "nowhere.npy"],
    ):
        assert command(["train", *flags]) == 2
        assert capsys.readouterr().err.count("\n") == 1
        assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_a_refused_resume_says_nothing_of_going_on(fit, capsys):
    folder = fit()
    other = make_model(latents=3)
    with pytest.raises(InputError, match="of another network"):
        fit(resume=True, epochs=3, model=other, quiet=False)
    assert capsys.readouterr().out == ""
    fit(resume=True, epochs=3, quiet=False)
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert re.fullmatch(rf"going on from {folder}.*, step 12", lines[0])
    assert lines[1] == "changed at step 12: epochs=2 -> 3"


def test_a_start_that_failed_before_its_first_step_does_not_occupy_out(fit, tmp_path, last):
    model = make_model()
    model.decoder.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fit(model=model)
    assert list(tmp_path.iterdir()) == []
    assert last(fit()).values["step"] == 12


def test_a_start_that_was_killed_before_its_first_checkpoint_does_not_either(fit, last, described):
    folder = fit(seed=3)
    shutil.rmtree(folder / "checkpoints")
    lines = len((folder / "metrics.jsonl").read_text().splitlines())
    assert described(fit(seed=5))["settings"]["seed"] == 5
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == lines


def test_a_run_that_begins_anew_may_have_any_settings(fit, described, last):
    folder = fit(seed=3)
    shutil.rmtree(folder / "checkpoints")
    fit(resume=True, seed=5)
    assert (described(folder)["settings"]["seed"], described(folder)["changes"]) == (5, [])


def test_two_processes_in_one_second_have_a_folder_each(tmp_path):
    code = (
        "from pathlib import Path; from fastvae.train.report.run_folder import RunFolder;"
        "RunFolder.beside_others(Path('runs/now')).close()"
    )
    started = [subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path) for _ in range(2)]
    assert [process.wait(300) for process in started] == [0, 0]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["now", "now-2"]


def test_what_a_script_cannot_have_is_refused(fit, tmp_path):
    with pytest.raises(InputError, match=r"^max_restarts is 3, but torchrun restarts a script"):
        fit(max_restarts=3)
    with pytest.raises(InputError, match=r"^out is empty: give the folder"):
        Trainer(make_model(), IMAGES, fastvae.TrainConfig(out=""))
    with pytest.raises(InputError, match="learning_rate"):
        fastvae.TrainConfig(learning_rate=3)


def test_float_pixels_of_a_discrete_likelihood_are_refused_before_anything_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("f.npy", np.random.default_rng(0).random((40, 3, 16, 16)).astype("float32"))
    flags = ["train", "--preset", "conv64", "--data", "f.npy", "--image-size", "16", "--width", "8", "--out", "run"]
    assert command(flags) == 2
    assert re.search(r"pixels in torch.float32, but .*LogisticMixture, is of 8-bit pixels", capsys.readouterr().err)
    model = make_model()
    model.likelihood = Categorical(256)
    with pytest.raises(InputError, match=r"Categorical, is of 8-bit pixels.*\(preset='gaussian', say\)"):
        Trainer(model, IMAGES / 255, fastvae.TrainConfig(out="own", device="cpu", binarize=False), quiet=True).fit()
    assert [path.name for path in tmp_path.iterdir()] == ["f.npy"]


def test_an_end_in_mid_epoch_counts_its_steps(fit, capsys):
    fit(epochs=1000, max_steps=4, quiet=False)
    output = " ".join(capsys.readouterr().out.split())
    assert "ended by max_steps at step 4, in epoch 1" in output
    assert "a model of your own on your data set, 4 steps" in output


def test_a_stop_says_how_to_go_on(tmp_path, monkeypatch, capsys, fit):
    monkeypatch.setattr("fastvae.train.loop.Interrupt.__init__", lambda self: setattr(self, "signal", signal.SIGINT))
    folder = tmp_path / "my run"
    assert command(["train", "--device", "cpu", "--no-autotune", "--precision", "fp32", "--out", str(folder)]) == 130
    output = " ".join(capsys.readouterr().out.split())
    assert f"stopped by SIGINT at step 1, nothing is lost: go on with fastvae train --resume '{folder}'" in output
    fit("own", quiet=False)
    output = " ".join(capsys.readouterr().out.split())
    assert re.search(r"go on with TrainConfig\(resume='.*own'\) and the same model and images", output)
