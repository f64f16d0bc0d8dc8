"""A run whose steps are replayed: as one step by step, to its end, its signals and what it leaves behind."""

import contextlib
import os
import re
import signal
import time
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from torch import nn

import fastvae
from fastvae.data import Dataset, load
from fastvae.train import TrainConfig, Trainer, run
from fastvae.train.checkpoint import checkpoint
from fastvae.train.distributed.world import World
from fastvae.train.graphs.replay import Replay
from fastvae.train.graphs.step_graphs import STEPS, StepGraphs
from fastvae.train.loop import LOG_EVERY, Loop
from fastvae.utils.errors import InputError

from ..recording import Recording, as_on_a_gpu

CPU = torch.device("cpu")
BATCH, EPOCH = 12, 113  # steps: after the first epoch, no replay of ten ends at a multiple of LOG_EVERY


@pytest.fixture(autouse=True)
def _(monkeypatch):
    as_on_a_gpu(monkeypatch)


@pytest.fixture
def fit(tmp_path, monkeypatch):
    monkeypatch.setattr("fastvae.train.run.write_curves", lambda metrics, path: path.touch() or path)

    def start(encode=lambda x: x, out="run", callbacks=(), **settings):
        defaults = {"batch_size": BATCH, "autotune": False, "device": "cpu", "epochs": 2, "precision": "fp32"}
        config = TrainConfig(out=str(tmp_path / out), **(defaults | {"execution": "eager"} | settings))
        torch.manual_seed(0)

        class Encode(nn.Module):
            def forward(self, x):
                return encode(x)

        encoder = nn.Sequential(nn.Flatten(), Encode(), nn.Linear(64, 6))
        model = fastvae.VAE(encoder, nn.Sequential(nn.Linear(3, 64), nn.Unflatten(1, (1, 8, 8))), latent_shape=3)
        pixels = load("digits").train[: EPOCH * BATCH - 5]
        data = Dataset("mine", pixels, load("digits").test[:100])
        return Trainer(model, data, config, callbacks=callbacks).fit()

    return start


@pytest.fixture
def replays(monkeypatch):
    """The graphs that are replayed, in turn."""
    seen, replay = [], Recording.replay
    monkeypatch.setattr(Recording, "replay", lambda graph: (seen.append(graph), replay(graph))[1])
    return seen


def saved(outcome):
    return checkpoint.newest(outcome.folder / "checkpoints")[1]


def assert_same(first, second):
    for name, tensor in saved(first).tensors.items():
        assert torch.equal(tensor, saved(second).tensors[name]), name


def test_it_is_the_run_step_by_step(fit, replays, capsys):
    replayed = fit(out="replayed")
    assert len(replays) == 2 * (11 + 2)  # ten steps at once, then one; the smaller batch is taken alone
    plain = fit(out="plain", replay="no")
    assert len(replays) == 2 * (11 + 2)
    assert_same(replayed, plain)
    assert "one by one" not in capsys.readouterr().out


@pytest.mark.parametrize("steps", [7, 127])
def test_it_ends_at_max_steps(fit, replays, steps):
    assert saved(fit(max_steps=steps)).values["step"] == steps
    assert replays


def test_what_cannot_be_captured_trains_step_by_step_and_says_why(fit, replays, capsys):
    def copying(x):
        return x * torch.tensor(0.5, device=x.device)

    outcome = fit(copying)
    assert not replays
    (said,) = [line for line in capsys.readouterr().out.splitlines() if "one by one" in line]
    assert said.startswith("fastvae: steps are launched one by one, as they cannot be captured: RuntimeError: ")
    assert re.search(r" \((test_replay|recording)\.py, line \d+\)", said)
    assert_same(outcome, fit(copying, out="asked", replay="no"))
    assert "one by one" not in capsys.readouterr().out


def test_tensors_that_a_callback_replaces_are_those_of_the_next_epoch(fit, replays):
    """A graph knows addresses alone, so it would go on with the old ones."""

    def replace(end):
        for parameter in end.model.parameters():
            parameter.data = parameter.data * 0.5

    replayed = fit(out="replayed", callbacks=[replace])
    assert len(replays) == 2 * (11 + 2)
    assert_same(replayed, fit(out="plain", callbacks=[replace], replay="no"))


def test_a_second_capture_adds_its_seconds_to_those_of_the_first(monkeypatch):
    def capture(*_):
        time.sleep(0.02)
        return Mock(still_hold=lambda *_: False)

    monkeypatch.setattr(StepGraphs, "where_possible", capture)
    replay = Replay(SimpleNamespace(startup_s=0.0, world=World(0, 0, 1, CPU)), Mock(), Mock(), enabled=True)
    replay.prepare()
    first = replay.capture_s
    replay.prepare()  # nothing has changed since
    assert 0.02 <= first == replay.capture_s
    replay.recheck()
    replay.prepare()
    assert replay.capture_s >= first + 0.02


@contextlib.contextmanager
def parting(events):
    """In the place of ``open_world``: one process, whose communicator closes last."""
    try:
        yield World(0, 0, 1, CPU)
    finally:
        events.append("parted")


@pytest.mark.parametrize("is_bad", [False, True])
def test_graphs_are_let_go_before_the_processes_part(fit, monkeypatch, is_bad):
    """NCCL waits at its end for graphs that hold its kernels; after an error, the traceback holds the loop."""
    events, reset = [], Recording.reset
    monkeypatch.setattr(run, "open_world", lambda device: parting(events))
    monkeypatch.setattr(Recording, "reset", lambda graph: (events.append("let go"), reset(graph))[1])

    too_long = {"optimizer": "sgd", "lr": 1e38} if is_bad else {}
    with pytest.raises(InputError, match="not finite") if is_bad else contextlib.nullcontext() as raised:
        fit(**too_long)
    assert events == ["let go", "let go", "parted"]
    del raised


class Alone(World):
    """One of two processes, which the other always agrees with."""

    def all_reduce(self, tensor):
        """The other adds nothing."""

    def broadcast(self, tensors):
        """They are."""

    def any(self, flag):
        return flag

    def broadcast_object(self, value):
        return value

    def all_gather_object(self, value):
        return [value, None]

    def barrier(self):
        """The other is there."""


@pytest.mark.parametrize("what", ["signal", "time budget"])
def test_several_processes_agree_on_a_stop_wherever_replays_end(fit, monkeypatch, what):
    monkeypatch.setattr(run, "open_world", lambda device: contextlib.nullcontext(Alone(0, 0, 2, CPU)))
    over, count = LOG_EVERY * 2 + 25, Loop._count

    def counted(loop, steps, images):
        count(loop, steps, images)
        if loop.step >= over > loop.step - steps:
            if what == "signal":
                os.kill(os.getpid(), signal.SIGTERM)
            else:
                loop._stopping.deadline = 0.0

    monkeypatch.setattr(Loop, "_count", counted)
    outcome = fit(time_budget=3600.0)
    assert outcome.status == (128 + signal.SIGTERM if what == "signal" else 0)
    assert over < saved(outcome).values["step"] < over + LOG_EVERY + STEPS
