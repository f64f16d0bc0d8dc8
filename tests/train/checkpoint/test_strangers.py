"""A run's folder of somebody else's: nothing outside it is touched, and state that lies is one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastvae.train.report import run_folder

from .refusal import GO_ON, refusal


@pytest.fixture
def victim(tmp_path):
    path = tmp_path / "victim"
    path.write_text("precious")
    return path


@pytest.mark.parametrize(
    "name", ["config.json.partial", "metrics.jsonl.partial", "metrics.jsonl", "samples.png", "checkpoints/best.partial",
             "checkpoints/step-000000024.partial", "checkpoints/step-000000012.partial", "config.json"]
)  # fmt: skip
def test_no_link_is_written_through(train, run, victim, name):
    if name == "config.json":
        victim.write_bytes((run / name).read_bytes())
    before = victim.read_bytes()
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(victim)
    assert train(*GO_ON)[0] == 0
    assert victim.read_bytes() == before
    assert not (run / name).is_symlink()


def test_a_worn_checkpoint_that_is_a_link_is_not_written_over(train, run, victim):
    names = [run / "checkpoints" / f"step-{step:09d}.safetensors" for step in (1, 2)]
    for name in names:
        name.symlink_to(victim)
    assert train(*GO_ON, "--checkpoint-every", "2")[0] == 0
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("make", [Path.symlink_to, Path.hardlink_to])
def test_a_lock_that_is_a_link_is_refused(train, run, victim, capsys, make):
    (run / "lock").unlink()
    make(run / "lock", victim)
    assert train(*GO_ON)[0] == 2
    refusal(capsys)
    assert victim.read_text() == "precious"


def test_a_checkpoints_folder_that_is_a_link_is_refused(train, run, tmp_path, capsys):
    thesis = tmp_path / "thesis"
    (run / "checkpoints").rename(thesis)
    (thesis / "mine.partial").touch()
    (run / "checkpoints").symlink_to(thesis)
    before = sorted(os.listdir(thesis))
    assert train(*GO_ON)[0] == 2
    assert "is a link, not a folder" in refusal(capsys)
    assert sorted(os.listdir(thesis)) == before


def test_partial_files_of_others_stay(train, run):
    (run / "checkpoints" / "thesis.partial").touch()
    assert train(*GO_ON)[0] == 0
    assert (run / "checkpoints" / "thesis.partial").exists()


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "lock", "checkpoints/step-000000012.safetensors"])
def test_a_pipe_is_refused_at_once(train, run, capsys, name):
    (run / name).unlink()
    os.mkfifo(run / name)
    assert train(*GO_ON)[0] == 2
    refusal(capsys)


@pytest.mark.parametrize(
    "line", ["5", "[]", '{"epoch": 1}', '{"epoch": 1, "step": "x", "split": "train"}', "[" * 100_000, "\x00\xff"]
)
def test_lines_that_are_no_measurements_are_dropped(train, run, metrics, line):
    with (run / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")
    assert train(*GO_ON)[0] == 0
    assert [(each["epoch"], each["split"]) for each in metrics(run)] == [
        (1, "train"), (1, "test"), (2, "train"), (2, "test"),
    ]  # fmt: skip


def test_files_that_a_run_names_are_said_before_they_are_read(run, capsys, tmp_path):
    from fastvae.cli import run as run_cli  # noqa: PLC0415

    content = json.loads((run / "config.json").read_text())
    content["settings"]["data"] = str(tmp_path / "elsewhere.npy")
    (run / "config.json").write_text(json.dumps(content))
    assert run_cli(["evaluate", str(run)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"{run}: its config.json names the images, in {tmp_path / 'elsewhere.npy'}"
    assert said[1].startswith("fastvae: error: ")


@pytest.mark.parametrize("command", ["sample", "reconstruct"])
def test_pictures_replace_links(run, victim, command):
    from fastvae.cli import run as run_cli  # noqa: PLC0415

    picture = run / ("samples.png" if command == "sample" else "reconstructions.png")
    picture.unlink()
    picture.symlink_to(victim)
    assert run_cli([command, str(run), "--count", "4"]) == 0
    assert victim.read_text() == "precious"
    assert not picture.is_symlink()


def test_event_files_have_names_that_nobody_can_foresee(kept):
    (events,) = kept.glob("events.out.tfevents.*")
    assert len(events.suffix) == 1 + 2 * 8


@pytest.mark.parametrize(
    "name", ["a\0.npy", "\ud800.npy", "~\0/x", f"x-{{0..{'1' * 5000}}}.tar", "{0..0}" * 1100 + ".tar"]
)
def test_names_that_no_file_can_have_are_one_line(run, capsys, name):
    from fastvae.cli import run as run_cli  # noqa: PLC0415

    content = json.loads((run / "config.json").read_text())
    content["settings"]["data"] = name
    (run / "config.json").write_text(json.dumps(content))
    assert run_cli(["evaluate", str(run)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert said[1].startswith("fastvae: error: ")


def test_later_files_that_are_no_checkpoints_cost_nothing(train, run):
    junk = [run / "checkpoints" / f"step-{number}.safetensors" for number in range(999999990, 999999995)]
    for path in junk:
        path.write_text("junk")
    assert train(*GO_ON, "--checkpoint-every", "5")[0] == 0
    kept = sorted(path.name for path in (run / "checkpoints").glob("step-0*"))
    assert kept == [f"step-{step:09d}.safetensors" for step in (15, 20, 24)]
    assert all(path.read_text() == "junk" for path in junk)


def test_settings_of_matplotlib_in_the_current_folder_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "matplotlibrc")
    code = "from fastvae.utils.matplotlib_figures import new_figure; new_figure(); print('drawn')"
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "drawn\n"


def test_too_many_metrics_are_refused(run, train, monkeypatch, capsys):
    monkeypatch.setattr(run_folder, "_METRICS_LIMIT", 10)
    assert train(*GO_ON)[0] == 2
    assert "more than the 10 that it may have" in refusal(capsys)
