"""Command lines that no setting fits, found before anything is done."""

import contextlib
import os
import subprocess
import sys

import pytest

from fastvae import cli


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--out", ""], "--out is empty"),
        (["train", "--out="], "--out is empty"),
        (["train", "--data", "", "--epochs", "1"], "--data is empty"),
        (["train", "--resume", ""], "--resume is empty"),
        (["evaluate", ""], "an argument is empty"),
    ],
)
def test_an_empty_argument_is_refused(arguments, words, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert cli.run(arguments) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [[], ["train"]])
def test_a_help_that_cannot_be_written_is_one_line(command, capsys, monkeypatch):
    with open("/dev/full", "w", buffering=1) as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert cli.run([*command, "--help"]) == 2
        monkeypatch.undo()
        with contextlib.suppress(OSError):
            full.close()
    assert "cannot write the help to standard output (No space left on device)" in capsys.readouterr().err


def test_a_help_whose_reader_is_gone_ends_in_silence():
    reader, writer = os.pipe()
    os.close(reader)
    try:
        program = "import sys; from fastvae.cli import run; sys.exit(run(['train', '--help']))"
        done = subprocess.run([sys.executable, "-c", program], stdout=writer, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
