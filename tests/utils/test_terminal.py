"""All output goes through one class: shown literally, and to any stream."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

from fastvae.utils import terminal
from fastvae.utils.terminal import Terminal

ROOT = Path(__file__).parents[2]


def test_shows_brackets_and_escapes_what_acts(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal().print("runs/[final] [/y] :smile: \x1b[31m")
    assert capsys.readouterr().out == "runs/[final] [/y] :smile: \\x1b[31m\n"


def test_tables_do_so_too(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("[red]a", title="t\x07")
    table.add_row("[/b]\x1b]0;x")
    Terminal().print(table)
    shown = capsys.readouterr().out
    for words in ("[red]a", r"t\x07", r"[/b]\x1b]0;x"):
        assert words in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize("columns", ["0", "1", "-5", "x"])
def test_a_terminal_without_columns(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    Terminal().print("words")
    assert capsys.readouterr().out == "words\n"


def run(code: str, *, stdout: int, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT,
        env={**os.environ, **environment},
    )  # fmt: skip


GUARDED = """
import sys
from fastvae.utils.terminal import Terminal
from fastvae.train.cli import guarded
def work():
    console = Terminal()
    for _ in range(100):
        console.print("word " * 1000)
    print("went on", file=sys.stderr)
    return 0
sys.exit(guarded(work))
"""


def test_work_goes_on_when_a_disk_is_full() -> None:
    with open("/dev/full", "w") as full:
        done = run(GUARDED, stdout=full.fileno())
    assert done.returncode == 2
    said = done.stderr.splitlines()
    assert said[0] == "went on"
    assert said[1].startswith("fastvae: error: cannot write to standard output (No space left on device)")
    assert len(said) == 2


def test_work_goes_on_when_a_reader_leaves() -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = run(GUARDED, stdout=write)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (0, "went on\n")


def test_characters_that_the_encoding_has_not_are_escaped() -> None:
    code = "from fastvae.utils import terminal; terminal.prepare(); terminal.Terminal().print('Ünïcode 數')"
    done = run(code, stdout=subprocess.PIPE, PYTHONIOENCODING="ascii")
    assert (done.stdout, done.stderr) == ("\\xdcn\\xefcode \\u6578\n", "")


def test_refusal_says_nothing_by_itself() -> None:
    assert terminal.refusal() is None
