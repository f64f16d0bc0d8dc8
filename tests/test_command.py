"""The first moments of a command: its signals, its streams, and where it looks for modules."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
FLAGS = ["--epochs", "1", "--no-autotune", "--precision", "fp32", "--device", "cpu", "--out", "run"]


def usual_signals():
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def python(code, **options):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, **options)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_at_once_until_there_is_something_to_save(number):
    code = f"import os, sys; sys.argv[0] = 'bin/fastvae'; import fastvae; os.kill(os.getpid(), {int(number)})"
    done = python(code, preexec_fn=usual_signals)
    assert (done.returncode, done.stderr) == (128 + number, "")


def test_nohup_is_minded():
    code = "import os, signal, sys; sys.argv[0] = 'fastvae'; import fastvae; os.kill(os.getpid(), signal.SIGHUP)"
    assert python(code, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)).returncode == 0


def test_a_program_that_imports_fastvae_keeps_its_own():
    code = "import signal as s, fastvae; print(s.getsignal(2) == s.default_int_handler, s.getsignal(15) == s.SIG_DFL)"
    assert python(code, preexec_fn=usual_signals).stdout == "True True\n"
    code = "import sys, fastvae; print(sys.path[0] == '')"
    assert python(code).stdout == "True\n"


def test_a_closed_stream_gives_its_number_to_no_file(tmp_path):
    write = "open('n', 'w').write(str(open('f', 'w').fileno()))"
    code = f"import sys; sys.argv[0] = 'fastvae'; import fastvae; print('x'); {write}"
    script = f'"{sys.executable}" -c "{code}" >&- 2>&- <&-'
    assert subprocess.run(["sh", "-c", script], cwd=tmp_path, check=False).returncode == 0
    assert int((tmp_path / "n").read_text()) > 2


WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")


@pytest.mark.parametrize(
    ("imports", "given", "expected"),
    [
        ("fastvae, torch", {}, "1000"),
        ("torch, fastvae", {}, None),
        ("fastvae, torch", {"GOMP_SPINCOUNT": "7"}, "7"),
        ("fastvae, torch", {"OMP_WAIT_POLICY": "active"}, None),
        ("fastvae, torch", {"KMP_BLOCKTIME": "0"}, None),
    ],
)
def test_waiting_threads_sleep_soon_unless_the_user_chose(imports, given, expected):
    environment = {name: value for name, value in os.environ.items() if name not in WAITING} | given
    code = f"import {imports}; import os; print(os.environ.get('GOMP_SPINCOUNT'))"
    done = python(code, env=environment | {"OMP_DISPLAY_ENV": "verbose"})
    assert done.stdout == f"{expected}\n"
    if expected is not None and "GOMP_SPINCOUNT" in done.stderr:  # torch's library is libgomp: it has read the variable
        assert f"GOMP_SPINCOUNT = '{expected}'" in done.stderr


@pytest.mark.parametrize(("given", "expected"), [({}, "30000"), ({"GOMP_SPINCOUNT": "7"}, "7")])
@pytest.mark.parametrize("first", ["", "import torch"])
def test_waits_are_longer_for_what_slows_nobody_unless_the_user_chose(first, given, expected):
    environment = {name: value for name, value in os.environ.items() if name not in WAITING} | given
    code = f"import fastvae, os; {first}\nfrom fastvae._command import lengthen_waits; lengthen_waits()"
    done = python(f"{code}; print(os.environ['GOMP_SPINCOUNT'])", env=environment)
    assert done.stdout == ("1000\n" if first and not given else f"{expected}\n")  # torch's library has read it


@pytest.mark.slow
@pytest.mark.parametrize("command", [["-m", "fastvae.train"], ["-m", "fastvae.train", "--nproc", "2"]], ids=" ".join)
def test_a_users_modules_change_nothing(command, tmp_path):
    for name in ("statistics", "random", "queue", "tyro", "numpy", "copy"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'RAN')!r}, 'a').write({name!r})")
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, *command, *FLAGS], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "RAN").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_importing_ends_without_a_traceback(number, tmp_path):
    process = subprocess.Popen(
        [BIN / "fastvae", "train", *FLAGS],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=usual_signals,  # noqa: PLW1509 -- no threads yet
    )  # fmt: skip
    time.sleep(0.6)
    process.send_signal(number)
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 128 + number
