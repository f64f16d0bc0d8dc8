"""What every kind of bad input comes to: one line, status 2, no traceback, nothing written."""

import re
import shutil

from fastvae.train.cli import main


def assert_refused(folder, flags, message, capsys):
    """Run ``fastvae train`` in ``folder``, the working directory."""
    before = contents(folder)
    capsys.readouterr()
    status = main(flags)
    captured = capsys.readouterr()
    assert status == 2
    assert re.search(message, " ".join((captured.err + captured.out).split()))
    assert "Traceback" not in captured.err
    assert captured.err.count("\n") == 1, captured.err
    assert contents(folder) == before


def contents(folder):
    """All that a refusal may not change."""
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def text(name, content):
    """A file with some content."""

    def prepare(folder):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return prepare


def of_run(change=lambda run: None):
    """A finished run in the folder `run`, with something changed."""

    def prepare(folder):
        shutil.copytree(folder.parent / "finished", folder / "run")
        change(folder / "run")

    return prepare
