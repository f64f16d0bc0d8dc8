"""Several machines: two of torchrun's agents, on loopback; and an agent that starts its processes again."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from fastvae.train.checkpoint import checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("spellings")]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--local-addr", "localhost", "--rdzv-backend", "c10d"]
FLAGS = ["--epochs", "2", "--batch-size", "99", "--precision", "fp64", "--no-autotune", "--device", "cpu"]


@pytest.fixture
def agents():
    """Start commands; what still runs in the end is killed, with all that it started."""
    started = []

    def start(*command):
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def curve(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line[term] for line in lines for term in ("loss", "nll", "kl")]


def port():
    """A free one."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


ANEW = [*FLAGS, "--deterministic", "--checkpoint-every", "3", "--epochs", "30"]


def kill_worker_once_saved(agent, folder):
    deadline = time.monotonic() + 120
    while not list(folder.glob("checkpoints/step-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    with open(f"/proc/{agent.pid}/task/{agent.pid}/children") as children:
        os.kill(int(children.read().split()[-1]), signal.SIGKILL)


def went_on(folder, train):
    """Whether a run is the one that a single process makes of the same flags."""
    assert train(*ANEW, out="one")[0] == 0
    assert curve(folder) == pytest.approx(curve(folder.parent / "one"), rel=1e-9, abs=0)
    _, found, skipped = checkpoint.newest(folder / "checkpoints")
    assert not skipped
    return found.values["epoch"] == 30


def test_torchruns_restarts_go_on_from_the_last_checkpoint(agents, train, tmp_path):
    """Its second start would otherwise be refused the folder, or, in torch 2.11, look for the dead at their ports."""
    folder = tmp_path / "two"
    nodes = ["--standalone", "--nproc-per-node", "2", "--max-restarts", "1"]
    agent = agents(*TORCHRUN[:3], *nodes, "-m", "fastvae.train", *ANEW, "--out", str(folder))
    kill_worker_once_saved(agent, folder)
    output = agent.communicate(timeout=180)[0]
    assert agent.returncode == 0, output
    assert output.count("going on from") == 1
    assert went_on(folder, train)


def test_two_machines_train_the_curve_of_one_process_and_their_restarts_go_on_too(agents, train, tmp_path):
    """Only one of the two agents counts the restart, and the second machine does not see the run's folder."""
    nodes = ["--nnodes", "2", "--nproc-per-node", "1", "--max-restarts", "1", "--rdzv-id", "again"]
    command = [*TORCHRUN, *nodes, "--rdzv-endpoint", f"localhost:{port()}", "-m", "fastvae.train", *ANEW, "--out"]
    out = [tmp_path / "first", tmp_path / "second"]
    both = [agents(*command, str(folder)) for folder in out]
    deadline = time.monotonic() + 120
    while not any(folder.exists() for folder in out) and time.monotonic() < deadline:
        time.sleep(0.02)
    main = 0 if out[0].exists() else 1
    kill_worker_once_saved(both[1 - main], out[main])
    outputs = [process.communicate(timeout=180)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    for said in ("going on from", "test loss (negative ELBO)"):
        assert sum(output.count(said) for output in outputs) == 1
    assert json.loads((out[main] / "config.json").read_text())["world_size"] == 2
    assert not out[1 - main].exists()
    assert went_on(out[main], train)
