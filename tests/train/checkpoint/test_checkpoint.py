"""Checkpoints: whole or not there, verified, and unable to run anything."""

import os
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from fastvae.train.checkpoint import checkpoint
from fastvae.train.checkpoint.checkpoint import Checkpoint
from fastvae.utils.errors import InputError


@pytest.fixture
def saved():
    tensors = {"model.a": torch.randn(3, 4), "model.empty": torch.zeros(0), "optimizer.0.step": torch.tensor(3.0)}
    return Checkpoint(tensors, {"step": 5, "scaler": {}})


def test_what_is_saved_comes_back(tmp_path, saved):
    found = checkpoint.load(checkpoint.save(tmp_path, 5, saved))
    assert found.values == saved.values
    assert found.tensors.keys() == saved.tensors.keys()
    for name, tensor in saved.tensors.items():
        assert torch.equal(found.tensors[name], tensor)
    assert found.part("model").keys() == {"a", "empty"}


def test_others_may_read_it_as_they_may_any_file(tmp_path, saved):
    (tmp_path / "any").touch()
    assert checkpoint.save(tmp_path, 5, saved).stat().st_mode == (tmp_path / "any").stat().st_mode


def test_what_was_loaded_does_not_change_with_the_file(tmp_path, saved):
    path = checkpoint.save(tmp_path, 5, saved)
    found = checkpoint.load(path)
    path.write_bytes(bytes(len(path.read_bytes())))
    assert torch.equal(found.tensors["model.a"], saved.tensors["model.a"])


def test_the_weights_are_plain_safetensors(tmp_path, saved):
    path = checkpoint.save(tmp_path, 5, saved)
    assert torch.equal(load_file(path)["model.a"], saved.tensors["model.a"])


def test_only_the_last_few_are_kept_and_nothing_partial(tmp_path, saved):
    for step in range(1, 7):
        checkpoint.save(tmp_path, step, saved)
    assert sorted(os.listdir(tmp_path)) == [f"step-{step:09d}.safetensors" for step in (4, 5, 6)]


def test_the_file_that_is_one_too_many_is_written_over_unless_it_has_another_name(tmp_path, saved):
    folder = tmp_path / "checkpoints"
    inodes = [checkpoint.save(folder, step, saved).stat().st_ino for step in (1, 2, 3)]
    os.link(folder / "step-000000002.safetensors", tmp_path / "backup")
    before = (tmp_path / "backup").read_bytes()
    longer = Checkpoint({**saved.tensors, "model.more": torch.ones(50)}, {"step": 6})
    assert checkpoint.save(folder, 4, longer).stat().st_ino == inodes[0]
    assert checkpoint.save(folder, 5, saved).stat().st_ino not in inodes
    assert (tmp_path / "backup").read_bytes() == before
    found = {path.name: checkpoint.load(path).values for path in folder.iterdir()}
    assert found == {
        f"step-00000000{step}.safetensors": {**saved.values, "step": at} for step, at in ((3, 5), (5, 5))
    } | {"step-000000004.safetensors": {"step": 6}}


def test_a_write_over_that_fails_leaves_two(tmp_path, saved, monkeypatch):
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, step, saved)
    monkeypatch.setattr(checkpoint, "sync", lambda path: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    with pytest.raises(InputError, match="use another disk"):
        checkpoint.save(tmp_path, 4, saved)
    assert sorted(os.listdir(tmp_path)) == [f"step-{step:09d}.safetensors" for step in (2, 3)]
    assert checkpoint.newest(tmp_path)[0].name == "step-000000003.safetensors"


def test_a_write_that_fails_leaves_the_others(tmp_path, saved, monkeypatch):
    checkpoint.save(tmp_path, 1, saved)

    def full(path, *arguments, over):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_tensors", full)
    with pytest.raises(InputError, match=r"step-000000002.safetensors \(No space left on device\): free some space"):
        checkpoint.save(tmp_path, 2, saved)
    assert os.listdir(tmp_path) == ["step-000000001.safetensors"]
    path, found, skipped = checkpoint.newest(tmp_path)
    assert path.name == "step-000000001.safetensors"
    assert found.values["step"] == 5
    assert skipped == []


@pytest.mark.parametrize("place", [0, 9, 200, -40, -1])
def test_any_flipped_bit_is_found(tmp_path, saved, place):
    path = checkpoint.save(tmp_path, 5, saved)
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=str(path)):
        checkpoint.load(path)


def test_truncation_is_found_and_the_older_one_taken(tmp_path, saved):
    checkpoint.save(tmp_path, 1, saved)
    path = checkpoint.save(tmp_path, 2, saved)
    path.write_bytes(path.read_bytes()[:-9])
    found, _, skipped = checkpoint.newest(tmp_path)
    assert found.name == "step-000000001.safetensors"
    assert len(skipped) == 1
    assert str(path) in skipped[0]
    assert "\n" not in skipped[0]
    assert "use another" not in skipped[0]  # nothing needs to be done


def test_a_pickle_runs_nothing(tmp_path):
    path = tmp_path / "step-000000001.safetensors"

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InputError, match="not a readable checkpoint"):
        checkpoint.load(path)
    assert not (tmp_path / "ran").exists()


def test_another_format_is_named(tmp_path, saved):
    path = tmp_path / "step-000000001.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata={"format": "99"})
    with pytest.raises(InputError, match="format 99, but this fastvae reads 2"):
        checkpoint.load(path)


def test_no_checkpoint_at_all(tmp_path):
    with pytest.raises(InputError, match="there is none"):
        checkpoint.newest(tmp_path)


@pytest.mark.parametrize("name", ["Adam", "RMSprop", "SGD"])
def test_optimizers_survive(name):
    def steps(model, optimizer, count):
        for _ in range(count):
            optimizer.zero_grad()
            model(torch.ones(2, 3)).square().sum().backward()
            optimizer.step()

    model = torch.nn.Linear(3, 2)
    options = {"momentum": 0.9} if name == "SGD" else {}
    optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.1, **options)
    steps(model, optimizer, 3)
    tensors, values = checkpoint.flatten_optimizer(optimizer.state_dict())
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    tensors = {key: value.clone() for key, value in tensors.items()}
    steps(model, optimizer, 3)

    again = torch.nn.Linear(3, 2)
    again.load_state_dict(weights)
    other = getattr(torch.optim, name)(again.parameters(), lr=0.7)
    other.load_state_dict(checkpoint.unflatten_optimizer(tensors, values))
    steps(again, other, 3)
    assert torch.equal(again.weight, model.weight)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.complex64])
def test_a_type_that_no_run_keeps_is_refused(tmp_path, dtype):
    save_file({"model.a": torch.ones(2).to(dtype)}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=rf"model\.a in {dtype}, which no run keeps"):
        checkpoint.load(tmp_path / "x.safetensors")
