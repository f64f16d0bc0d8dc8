"""The training does not wait for a disk, however slow; nothing that was asked for last is lost."""

import threading
import time
import weakref
from functools import partial

import pytest
import torch

from fastvae.train.checkpoint import checkpoint
from fastvae.train.checkpoint.async_writer import AsyncWriter
from fastvae.train.checkpoint.checkpoint import Checkpoint
from fastvae.utils.errors import InputError


def test_the_caller_does_not_wait_and_the_way_out_does():
    release, written = threading.Event(), []
    with AsyncWriter() as saver:
        saver.submit(lambda: lambda: (release.wait(10), written.append("first"))[0])
        assert written == []
        release.set()
    assert written == ["first"]


def test_what_still_waits_gives_way_to_what_is_newer():
    begun, release, written = threading.Event(), threading.Event(), []

    def slow():
        begun.set()
        release.wait(10)
        written.append(0)

    with AsyncWriter() as saver:
        saver.submit(lambda: slow)
        assert begun.wait(10)
        for number in (1, 2, 3):
            saver.submit(lambda number=number: partial(written.append, number))
        release.set()
    assert written == [0, 3]


def test_what_waits_is_gone_before_what_is_newer_is_copied():
    class Copy(list):
        pass

    begun, release, waiting, alive = threading.Event(), threading.Event(), [], []

    def capture():
        alive.append(len([copy for copy in waiting if copy() is not None]))
        copy = Copy()
        waiting.append(weakref.ref(copy))
        return copy.sort

    with AsyncWriter() as saver:
        saver.submit(lambda: lambda: (begun.set(), release.wait(10))[0])
        assert begun.wait(10)
        for _ in range(3):
            saver.submit(capture)
        release.set()
    assert alive == [0, 0, 0]


def fail():
    raise InputError("the disk is full")


def test_an_error_is_told_at_the_next_call_or_on_the_way_out():
    with pytest.raises(InputError, match="full"), AsyncWriter() as saver:
        saver.submit(lambda: fail)
    with AsyncWriter() as saver:
        saver.submit(lambda: fail)
        deadline = time.monotonic() + 10
        while saver._jobs and not saver._jobs[0].done() and time.monotonic() < deadline:
            time.sleep(0.01)
        with pytest.raises(InputError, match="full"):
            saver.submit(lambda: fail)


def end_by(error):
    with AsyncWriter() as saver:
        saver.submit(lambda: fail)
        raise error


def test_what_ended_the_run_is_told_first():
    with pytest.raises(KeyError, match="of the run"):
        end_by(KeyError("of the run"))


def test_a_checkpoint_is_of_the_moment_when_it_was_asked_for(train, monkeypatch, tmp_path):
    """While one is written, steps go on: its weights are those of its step, as in a run that ended there."""
    write = checkpoint.write

    def late(path, saved, reuse=None):
        time.sleep(0.3)
        write(path, saved, reuse)

    monkeypatch.setattr(checkpoint, "write", late)
    assert train("--max-steps", "20", "--checkpoint-every", "5")[0] == 0
    kept = sorted((tmp_path / "run" / "checkpoints").glob("step-*"))
    assert kept[-1].name == "step-000000020.safetensors"
    for path in kept:
        found = checkpoint.load(path)
        step = found.values["step"]
        assert found.tensors["noise"].tolist()[1] == step == int(path.stem.removeprefix("step-"))
        assert train("--max-steps", str(step), "--out", str(tmp_path / path.stem))[0] == 0
        _, ended_there, _ = checkpoint.newest(tmp_path / path.stem / "checkpoints")
        for name, tensor in ended_there.part("model").items():
            assert torch.equal(tensor, found.part("model")[name])


def test_a_copy_does_not_follow():
    weight = torch.ones(2)
    copy = Checkpoint({"weight": weight}, {}).copy()
    weight.zero_()
    assert copy.tensors["weight"].tolist() == [1.0, 1.0]


def test_memory_is_used_again_where_it_fits():
    copies, weight = checkpoint.Copies(), torch.ones(2)
    first = copies.take(Checkpoint({"weight": weight}, {}))
    second = copies.take(Checkpoint({"weight": weight + 1}, {}))
    assert first.tensors["weight"].tolist() == [1.0, 1.0]  # it was not given back
    copies.give_back(first)
    third = copies.take(Checkpoint({"weight": weight + 2, "more": weight}, {"step": 3}))
    assert third.tensors["weight"] is first.tensors["weight"]
    assert (third.tensors["weight"].tolist(), third.values) == ([3.0, 3.0], {"step": 3})
    assert second.tensors["weight"].tolist() == [2.0, 2.0]
    copies.give_back(third)
    assert copies.take(Checkpoint({"weight": torch.ones(3)}, {})).tensors["weight"].tolist() == [1.0] * 3
