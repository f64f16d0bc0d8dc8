"""A disk that is full, read-only or gone under a run: one line, status 2, nothing half-written, nothing lost."""

import errno
import os
import shutil
import subprocess
import sys
import threading

import pytest

from fastvae.train.checkpoint import checkpoint
from fastvae.train.engine import Engine
from fastvae.train.report import run_folder

EVERY = ("--epochs", "2", "--checkpoint-every", "5")


def one_line(capsys):
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 1, lines
    assert lines[0].startswith("fastvae: error: cannot write ")
    return lines[0]


def names(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.ENOSPC, "free some space"), (errno.EROFS, "make it writable"), (errno.EIO, "another disk")],
)
def test_a_save_that_the_disk_refuses(train, metrics, monkeypatch, capsys, number, remedy):
    whole = train(*EVERY, out="whole")[1]
    save, saves = checkpoint.write_tensors, []

    def refuse(path, tensors, metadata, *, over):
        saves.append(path)
        if len(saves) > 2:
            path.write_bytes(b"half")
            raise OSError(number, os.strerror(number))
        save(path, tensors, metadata, over=over)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_tensors", refuse)
        status, folder = train(*EVERY, out="parts")
    assert status == 2
    line = one_line(capsys)
    assert os.strerror(number) in line
    assert remedy in line
    assert str(folder / "checkpoints") in line
    assert not [name for name in names(folder) if name.endswith(".partial")]
    path, found, skipped = checkpoint.newest(folder / "checkpoints")
    # What was still waiting when the next one came was left out: any step may be the last before.
    last = [saved.stem for saved in saves[:2] if saved.name.startswith("step-")][-1]
    assert (path.stem, skipped) == (last, [])
    assert found.values["step"] == int(last.removeprefix("step-"))
    assert train(*EVERY, "--resume", out="parts")[0] == 0
    ours, theirs = (checkpoint.newest(run / "checkpoints")[1].tensors for run in (folder, whole))
    assert all((ours[name] == tensor).all() for name, tensor in theirs.items())


def full(path, flags, mode):
    """As open_in_place, on a disk without room."""
    return os.fdopen(os.open("/dev/full", flags), mode)


def test_metrics_on_a_full_disk(train, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run_folder, "open_in_place", full)
    assert train("--epochs", "2", "--checkpoint-every", "5")[0] == 2
    line = one_line(capsys)
    assert "metrics.jsonl (No space left on device): free some space" in line
    # The epoch's last step: a run that resumes evaluates and logs the epoch.
    assert checkpoint.newest(tmp_path / "run" / "checkpoints")[1].values["step"] == 12


def test_a_folder_that_is_deleted_under_the_run(train, tmp_path, monkeypatch, capsys):
    evaluate = Engine.evaluate

    def delete(self, loader, epoch):
        shutil.rmtree(tmp_path / "run")
        return evaluate(self, loader, epoch)

    monkeypatch.setattr(Engine, "evaluate", delete)
    assert train("--epochs", "2")[0] == 2
    assert "metrics.jsonl (No such file or directory): do not remove a run's folder" in one_line(capsys)
    assert not (tmp_path / "run").exists()


def test_a_save_into_a_deleted_folder_does_not_make_it_anew(train, tmp_path, monkeypatch, capsys):
    save = Engine.is_finite

    def delete(self):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        return save(self)

    monkeypatch.setattr(Engine, "is_finite", delete)
    assert train("--epochs", "2", "--checkpoint-every", "5")[0] == 2
    assert "step-000000005.safetensors (No such file or directory)" in one_line(capsys)
    assert not (tmp_path / "run").exists()


LIMITED = """
import resource, sys
import matplotlib.font_manager  # writes a cache of its own
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
from fastvae.train.cli import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    ("size", "every", "what"),
    [(600, "5", "run"), (8_000, "1000", "run/events"), (30_000, "5", "run/checkpoints/step-000000005")],
)
def test_real_refusals_by_the_kernel(tmp_path, size, every, what):
    """A limit on the size of files refuses the writes of TensorBoard's thread, or of safetensors in Rust."""
    flags = ["--epochs", "2", "--device", "cpu", "--no-autotune", "--precision", "fp32", "--checkpoint-every", every]
    flags += ["--out", str(tmp_path / "run")]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", LIMITED, str(size), *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.strip()]
    assert line.removeprefix("fastvae: error: cannot write ").removeprefix("to ").startswith(str(tmp_path / what))
    assert "File too large" in line
    assert not [name for name in names(tmp_path / "run") if name.endswith(".partial")]


def test_other_threads_still_show_their_errors(train):
    before = threading.excepthook
    train("--epochs", "1")
    assert threading.excepthook is before
