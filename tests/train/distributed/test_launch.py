"""Starting N processes, ending them, and what they agree on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fastvae.train.distributed.launch import _is_ignored_hangup, launch
from fastvae.utils.errors import InputError
from fastvae.utils.machine import cores

TORCHRUN = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}

WORKER = """
import os, signal, sys, time

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())  # in one piece: the processes share a pipe

rank, (kind, *values) = os.environ["RANK"], sys.argv[1:]
if kind == "print":
    say(values, {name: os.environ.get(name) for name in ("WORLD_SIZE", "GROUP_RANK", "TORCHELASTIC_OF_OLD")})
if kind == "exit" and rank == values[0]:
    sys.exit(int(values[1]))
if kind == "kill" and rank == values[0]:
    os.kill(os.getpid(), int(values[1]))
if kind in {"exit", "kill", "wait", "follow"}:
    got = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: got.append(number))
    if kind == "follow":
        from fastvae.train.distributed.launch import _follow_agent
        _follow_agent()
    say("ready")
    until = time.monotonic() + 30
    while not got and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(1)  # a checkpoint takes its time
    say("saved", signal.Signals(got[0]).name)
"""
LAUNCHER = """
import sys
from fastvae.train.distributed.launch import launch
sys.exit(launch(2, sys.argv[1:], lambda: 99, module="worker"))
"""
WORLD = """
import os, sys, torch
from fastvae.train.distributed.launch import launch
from fastvae.train.distributed.world import open_world

def main():
    with open_world("cpu") as world:
        ranks = torch.full((3,), float(world.rank + 1))
        world.all_reduce(ranks)
        answers = world.any(world.rank == 1), world.any(False), world.any(True)
        world.barrier()
        line = f"{world.is_rank_0} {world.device} {ranks.tolist()} {answers} {torch.get_num_threads()}\\n"
        os.write(1, line.encode())  # in one piece: the processes share a pipe
        if sys.argv[1:] == ["fail"]:
            if world.rank == 1:
                raise SystemExit(7)
            world.barrier()
    assert not torch.distributed.is_initialized()
    return 0

if __name__ == "__main__":
    sys.exit(launch(2, sys.argv[1:], main, module="worker"))
"""
RESTARTED = """
import os, signal, sys
from pathlib import Path
from fastvae.train.distributed.launch import launch

def main():
    if os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        signal.pause()
    return 0

if __name__ == "__main__":
    sys.exit(launch(2, sys.argv[1:], main, module="worker", max_restarts=3))
"""


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*TORCHRUN, "LOCAL_WORLD_SIZE", "OMP_NUM_THREADS", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def started(folder: Path, worker: str, *command: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    (folder / "worker.py").write_text(worker)
    (folder / "launcher.py").write_text(LAUNCHER)
    paths = os.pathsep.join([str(folder), *filter(None, sys.path)])
    process = subprocess.Popen(
        [sys.executable, *command],
        env=os.environ | {"PYTHONPATH": paths, "TMPDIR": str(folder)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def run(folder: Path, worker: str, *command: str, **environment: str) -> tuple[int, list[str], str]:
    with started(folder, worker, *command, **environment) as process:
        output, errors = process.communicate(timeout=60)
    return process.returncode, sorted(output.splitlines()), errors


def test_starts_processes_with_the_arguments_as_typed(tmp_path: Path) -> None:
    arguments = ["--out", "a b", "$$HOME ${local_rank}", "--nproc", "2"]

    status, output, errors = run(tmp_path, WORKER, str(tmp_path / "launcher.py"), "print", *arguments)

    assert (status, errors) == (0, "")
    assert output == [f"{arguments} " + str({"WORLD_SIZE": "2", "GROUP_RANK": "0", "TORCHELASTIC_OF_OLD": None})] * 2
    assert not list(tmp_path.glob("fastvae-*"))


@pytest.mark.parametrize(
    ("arguments", "status", "errors"),
    [
        (["exit", "1", "2"], 2, ""),
        (
            ["kill", "0", str(int(signal.SIGKILL))],
            137,
            "fastvae: process 0 of 2 was killed by SIGKILL: perhaps for lack of memory\n",
        ),
    ],
)
def test_the_first_failure_ends_all_and_gives_the_status(
    arguments: list[str], status: int, errors: str, tmp_path: Path
) -> None:
    assert run(tmp_path, WORKER, str(tmp_path / "launcher.py"), *arguments)[::2] == (status, errors)


@pytest.mark.parametrize(
    ("kind", "signals", "status", "received"),
    [
        ("wait", [signal.SIGINT], 130, "SIGINT"),
        ("wait", [signal.SIGTERM], 143, "SIGTERM"),
        ("wait", [signal.SIGINT, signal.SIGINT, signal.SIGINT], 130, "SIGINT"),
        ("follow", [signal.SIGKILL], -signal.SIGKILL, "SIGTERM"),
    ],
)
@pytest.mark.slow
def test_signals_reach_the_workers_which_may_save(
    kind: str, signals: list[signal.Signals], status: int, received: str, tmp_path: Path
) -> None:
    with started(tmp_path, WORKER, str(tmp_path / "launcher.py"), kind) as process:
        assert process.stdout is not None
        for _ in range(2):
            assert process.stdout.readline().startswith("ready")
        for number in signals:
            process.send_signal(number)
            time.sleep(0.2)
        # The pipe closes when the last worker has gone: none is left behind.
        output, errors = process.communicate(timeout=20)

    assert output.splitlines() == [f"saved {received}"] * 2
    assert errors == ""
    assert process.returncode == status


@pytest.mark.slow
def test_signals_pass_through_torchrun_with_one_process(tmp_path: Path) -> None:
    command = ["-m", "torch.distributed.run", str(tmp_path / "launcher.py"), "wait"]
    with started(tmp_path, WORKER, *command) as process:
        assert process.stdout is not None
        for _ in range(2):
            assert process.stdout.readline().startswith("ready")
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=20)

    assert output.splitlines() == ["saved SIGINT"] * 2


def test_under_torchrun_the_environment_is_cleaned(tmp_path: Path) -> None:
    outer = TORCHRUN | {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "TORCHELASTIC_OF_OLD": "1"}

    status, output, errors = run(tmp_path, WORKER, str(tmp_path / "launcher.py"), "print", **outer)

    assert (status, errors) == (0, "")
    assert output == ["[] " + str({"WORLD_SIZE": "2", "GROUP_RANK": "0", "TORCHELASTIC_OF_OLD": None})] * 2


@pytest.mark.slow
@pytest.mark.parametrize("command", [[], ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]])
def test_two_processes_agree(command: list[str], tmp_path: Path) -> None:
    status, output, _ = run(tmp_path, WORLD, *command, str(tmp_path / "worker.py"))

    threads = max(1, cores() // 2)
    assert status == 0
    assert output == [f"{main} cpu [3.0, 3.0, 3.0] (True, False, True) {threads}" for main in (False, True)]


@pytest.mark.slow
def test_an_error_in_one_process_ends_the_other_in_silence(tmp_path: Path) -> None:
    status, _, errors = run(tmp_path, WORLD, str(tmp_path / "worker.py"), "fail")

    assert (status, errors) == (7, "")  # the one that waited for it leaves the word to the agent


@pytest.mark.slow
def test_a_restart_is_told_in_a_line(tmp_path: Path) -> None:
    status, _, errors = run(tmp_path, RESTARTED, str(tmp_path / "worker.py"))

    assert (status, errors) == (0, "fastvae: a process has died: all 2 are started again (1 of 3 times)\n")


def test_more_processes_than_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"--nproc 1,000,000,000: starting torch in each takes .* GB of memory"):
        launch(10**9, [], lambda: 3)


@pytest.mark.parametrize(("handler", "names"), [(signal.SIG_IGN, False), (signal.SIG_DFL, True)])
def test_the_agent_minds_nohup(handler: signal.Handlers, names: bool) -> None:
    before = signal.signal(signal.SIGHUP, handler)
    try:
        assert _is_ignored_hangup("SIGHUP") is not names
        assert not _is_ignored_hangup("SIGTERM")
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("nproc", "size"), [(None, None), (1, None), (None, "1"), (1, "1"), (None, "4"), (4, "4")])
def test_runs_here(nproc: int | None, size: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if size is not None:
        for name, value in (TORCHRUN | {"WORLD_SIZE": size, "RANK": "0", "LOCAL_RANK": "0"}).items():
            monkeypatch.setenv(name, value)

    assert launch(nproc, ["--nproc", "x"], lambda: 3) == 3


def test_an_agent_that_is_not_ours_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTVAE_AGENT_PID", "abc")
    with pytest.raises(InputError, match="FASTVAE_AGENT_PID='abc' in the environment was not set by fastvae"):
        launch(None, [], lambda: 3)


@pytest.mark.parametrize(
    ("nproc", "size", "says"), [(0, "1", "--nproc 0"), (-2, "4", "-2"), (2, "4", "2.* 4 "), (1, "4", "1.* 4 ")]
)
def test_refuses_a_contradiction(nproc: int, size: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (TORCHRUN | {"WORLD_SIZE": size, "RANK": "0", "LOCAL_RANK": "0"}).items():
        monkeypatch.setenv(name, value)

    with pytest.raises(InputError, match=says):
        launch(nproc, [], lambda: 3)
