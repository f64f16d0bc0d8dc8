"""Two runs on one folder: the second is refused, and a run that was killed leaves nothing in the way."""

import errno
import fcntl
import signal
import socket
import subprocess
import sys

import pytest

from fastvae.utils.errors import InputError
from fastvae.utils.lock import Lock

HOLD = """
import sys, time
from pathlib import Path
from fastvae.utils.lock import Lock
lock = Lock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of ``tmp_path / "run"``."""
    folder = tmp_path / "run"
    folder.mkdir()
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_second_run_is_refused_until_the_first_is_killed(holder, train, capsys):
    status, folder = train("--epochs", "1")
    assert status == 2
    lines = capsys.readouterr().err.splitlines()
    host = socket.gethostname()
    assert lines == [
        f"fastvae: error: {folder} is in use by process {holder.pid} on {host}: wait for its end, or choose another "
        "--out"
    ]
    assert [path.name for path in folder.iterdir()] == ["lock"]
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert train("--epochs", "1")[0] == 0
    assert train("--epochs", "2", "--resume")[0] == 0


def test_a_run_that_goes_on_is_refused_too(tmp_path, train, capsys):
    folder = train("--epochs", "1")[1]
    lock = Lock(folder)  # flock knows open files, not processes
    for flags in (("--resume",), ()):
        assert train("--epochs", "2", *flags)[0] == 2
        assert "is in use by process" in capsys.readouterr().err
    lock.release()
    lock.release()
    assert train("--epochs", "2", "--resume")[0] == 0


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks_is_used_without(tmp_path, monkeypatch, number):
    def flock(*_):
        raise OSError(number, "no locks")

    monkeypatch.setattr(fcntl, "flock", flock)
    Lock(tmp_path).release()


def test_a_lock_that_names_nobody(tmp_path):
    lock = Lock(tmp_path)
    (tmp_path / "lock").write_text("")
    with pytest.raises(InputError, match="in use by another process: wait"):
        Lock(tmp_path)
    lock.release()
