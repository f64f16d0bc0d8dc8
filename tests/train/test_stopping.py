"""Signals: save where there is something to save, end at once where there is not, with status 128 + the signal."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest
import torch

from fastvae.train import stopping
from fastvae.train.cli import guarded, main
from fastvae.train.config import TrainConfig
from fastvae.train.distributed.ranks import LostRankError
from fastvae.train.distributed.world import World
from fastvae.train.engine import Engine
from fastvae.train.measure import autotune
from fastvae.train.step.loss import StepLoss
from fastvae.train.stopping import Interrupt, Stopped, Stopping, stops_raised

STOPS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
ALONE = World(0, 0, 1, torch.device("cpu"))


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", STOPS)
def test_a_command_ends_with_the_signals_status(number, capsys):
    assert guarded(lambda: send(number) or time.sleep(5)) == 128 + number
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("resumes", [False, True])
def test_a_stop_before_the_first_step_says_that_nothing_is_kept(resumes, tmp_path, monkeypatch, capsys):
    flags = ["--device", "cpu", "--epochs", "1", "--out", str(tmp_path / "run")]
    if resumes:
        assert main([*flags, "--no-autotune", "--precision", "fp32"]) == 0
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setattr(autotune, "choose", lambda *_: send(signal.SIGINT) or time.sleep(5))
    capsys.readouterr()
    more = ["--resume", "--epochs", "2", "--autotune"] if resumes else []
    assert main([*flags, *more]) == 130
    output, errors = capsys.readouterr()
    line = "stopped by SIGINT before the first step: nothing was trained, and nothing of this start is kept"
    assert (output, errors.splitlines()) == ("", [line])
    assert kept == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_stop_in_the_first_step_says_so_and_leaves_no_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Engine, "train_step", lambda *_: send(signal.SIGTERM))
    flags = ["--device", "cpu", "--no-autotune", "--out", str(tmp_path / "run")]
    assert main(flags) == 143
    output, errors = capsys.readouterr()
    assert "stopped by SIGTERM before the first step: nothing was trained, and nothing of" in " ".join(output.split())
    assert errors == ""
    assert list(tmp_path.iterdir()) == []


def test_a_stop_while_figures_are_drawn_says_nothing_of_a_first_step(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("fastvae.train.run.sample_grid", lambda *_: send(signal.SIGINT))
    flags = ["--device", "cpu", "--no-autotune", "--epochs", "1", "--out", str(tmp_path / "run")]
    assert main(flags) == 130
    assert "before the first step" not in "".join(capsys.readouterr())
    assert any((tmp_path / "run" / "checkpoints").iterdir())


def test_more_signals_do_not_interrupt_the_ending():
    ended = []

    def work():
        try:
            send(signal.SIGINT)
        finally:
            send(signal.SIGTERM)
            send(signal.SIGINT)
            ended.append(True)
        return 0

    before = [signal.getsignal(number) for number in STOPS]
    assert guarded(work) == 130
    assert ended
    assert [signal.getsignal(number) for number in STOPS] == before


def test_after_some_seconds_a_signal_ends_it_in_any_case(monkeypatch):
    exits = []
    monkeypatch.setattr(stopping, "_UNWINDING", -1.0)
    monkeypatch.setattr(os, "_exit", exits.append)
    with suppress(Stopped), stops_raised():
        try:
            send(signal.SIGINT)
        finally:
            send(signal.SIGTERM)
    assert exits == [143]


def test_nohup_is_minded():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stops_raised(), Interrupt() as interrupt:
            interrupt.hold_back()
            send(signal.SIGHUP)
        assert interrupt.signal is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_have_no_handlers():
    found = []

    def work():
        with stops_raised(), Interrupt():
            found.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [before]


def test_before_the_end_of_a_step_it_is_raised_and_then_noted():
    with Interrupt(), pytest.raises(Stopped):
        send(signal.SIGTERM)
    with Interrupt() as interrupt:
        decides = Stopping(TrainConfig(), ALONE, interrupt)
        assert not decides.ends_after(1)
        send(signal.SIGTERM)
        send(signal.SIGINT)
        assert decides.ends_after(2)
        assert decides.by_signal
    assert decides.status == 143


class Two(World):
    """Two ranks, of which the other one says something."""

    others = torch.zeros(5, dtype=torch.float64)
    asked = 0

    def all_reduce(self, tensor):
        Two.asked += 1
        tensor += self.others


def test_two_ranks_ask_each_other_every_two_seconds(monkeypatch):
    world = Two(0, 0, 2, torch.device("cpu"))
    clock = [100.0]
    monkeypatch.setattr(stopping.time, "monotonic", lambda: clock[0])
    decides = Stopping(TrainConfig(), world, Interrupt())
    Two.asked = 0
    clock[0] += 60  # compiling
    assert not decides.ends_after(1)
    assert Two.asked == 1
    asked_at = []
    for step in range(2, 120):
        clock[0] += 0.01
        Two.others = torch.tensor([0, 0, 0, 0, clock[0] - decides._since], dtype=torch.float64)
        before = Two.asked
        assert not decides.ends_after(step)
        asked_at += [step] if Two.asked > before else []
    assert asked_at == [2, 52, 102]  # quick steps: every 50
    for step in range(120, 200):
        clock[0] += 1.0
        Two.others = torch.tensor([0, 0, 0, 0, clock[0] - decides._since], dtype=torch.float64)
        before = Two.asked
        decides.ends_after(step)
        asked_at += [step] if Two.asked > before else []
    assert [b - a for a, b in zip(asked_at[-10:], asked_at[-9:], strict=False)] == [2] * 9  # slow ones: every 2 s
    Two.others = torch.tensor([0, 0, 1, 0, 1.0], dtype=torch.float64)  # SIGTERM, to the other rank alone
    assert any(decides.ends_after(step) for step in range(200, 203))
    assert decides.status == 143


def test_the_time_budget_is_common(monkeypatch):
    decides = Stopping(TrainConfig(time_budget=1e9), Two(0, 0, 2, torch.device("cpu")), Interrupt())
    Two.others = torch.tensor([0, 0, 0, 1, 0.0], dtype=torch.float64)
    assert decides.ends_after(1)
    assert not decides.by_signal


def test_a_signal_ends_an_evaluation_which_is_made_again(train, metrics, monkeypatch):
    whole = train("--epochs", "2", out="whole")[1]
    evaluate = Engine.evaluate

    def interrupted(self, batches, epoch):
        send(signal.SIGTERM)
        return evaluate(self, batches, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "evaluate", interrupted)
        status, parts = train("--epochs", "2", out="parts")
    assert status == 143
    assert [path.name for path in (parts / "checkpoints").glob("step*")] == ["step-000000012.safetensors"]
    assert not (parts / "metrics.jsonl").exists() or metrics(parts) == []
    assert train("--epochs", "2", "--resume", out="parts")[0] == 0
    terms = ("epoch", "step", "split", "loss", "nll", "kl")
    assert [[line[t] for t in terms] for line in metrics(parts)] == [
        [line[t] for t in terms] for line in metrics(whole)
    ]


def test_a_signal_in_the_first_step_ends_it_at_once(train, monkeypatch, capsys):
    def compiling(*_):
        send(signal.SIGHUP)
        raise AssertionError("went on")

    with monkeypatch.context() as patch:
        patch.setattr(StepLoss, "forward", compiling)
        status, folder = train("--epochs", "2")
    assert status == 129
    assert "stopped by SIGHUP before the first step: nothing was trained, and nothing of" in capsys.readouterr().out
    assert not folder.exists()
    assert train("--epochs", "1")[0] == 0


def test_memory_that_runs_out_is_one_line(capsys):
    assert guarded(lambda: torch.empty(1 << 50) and 0) == 2
    error = capsys.readouterr().err
    assert error.startswith("fastvae: error: out of memory: 4,503,599.63 GB were asked for, this machine has ")
    assert error.count("\n") == 1


def test_another_rank_that_ended_is_one_line(capsys):
    def work():
        raise LostRankError("process 1 of 2 has ended: this one stops too")

    assert guarded(work) == 1
    assert capsys.readouterr().err == "fastvae: error: process 1 of 2 has ended: this one stops too\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_while_torch_is_not_there_yet_ends_the_process_at_once(number):
    code = (
        "import os, sys; from fastvae.train.stopping import stops_raised\n"
        "with stops_raised():\n"
        "    try:\n"
        f"        assert 'torch' not in sys.modules; os.kill(os.getpid(), {int(number)})\n"
        "    except BaseException:\n"
        "        print('an exception, which torch would drop while it imports numpy')\n"
    )
    signals = dict.fromkeys((signal.SIGINT, signal.SIGTERM), signal.SIG_DFL)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        preexec_fn=lambda: [signal.signal(*pair) for pair in signals.items()],
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", "")
