"""A new run from the weights of another, or of a file."""

import zipfile

import pytest
import safetensors.torch
import torch

import fastvae
from fastvae.cli import run as command
from fastvae.train.start.initial_weights import read_weights
from fastvae.utils.errors import InputError

from .conftest import make_model


class Evil:
    """A pickle of it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def first_weights(folder):
    """The weights after a step of next to no size."""
    return {name: tensor.float() for name, tensor in read_weights(folder).items()}


def saved(path, content):
    safetensors.torch.save_file(content, path) if path.suffix == ".safetensors" else torch.save(content, path)
    return path


@pytest.mark.parametrize("form", ["run", "best", "x.safetensors", "x.pt", "nested.ckpt"])
def test_a_run_begins_with_those_weights(form, fit, tmp_path, described, last):
    model = make_model(seed=1)
    state = model.state_dict()
    if form in ("run", "best"):
        source = fit("first", model=model, ema=0.5)
        state = {**last(source).part("model"), **last(source).part("ema")}
        source = source / "checkpoints" / "best.safetensors" if form == "best" else source
    else:
        source = saved(tmp_path / form, {"epoch": 3, "model": state} if "nested" in form else state)
    folder = fit("second", init_from=source, lr=1e-30, epochs=1)
    for name, tensor in first_weights(folder).items():
        torch.testing.assert_close(tensor, state[name].float())
    kept = described(folder)
    assert (kept["settings"]["init_from"], kept["changes"]) == (str(source), [])
    assert last(folder).values["step"] == 6
    if form == "x.pt":  # which a run that resumes does not need again
        source.unlink()
        fit("second", resume=True, epochs=2)
        assert last(folder).values["step"] == 12


def test_a_preset_begins_with_them_too(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = ["train", "--device", "cpu", "--no-autotune", "--precision", "fp32", "--max-steps", "1", "--lr", "1e-30"]
    assert command([*flags, "--seed", "3", "--out", "a"]) == 0
    assert command([*flags, "--seed", "4", "--out", "b", "--init-from", "a"]) == 0
    for name, tensor in first_weights(tmp_path / "a").items():
        torch.testing.assert_close(first_weights(tmp_path / "b")[name], tensor)
    capsys.readouterr()
    assert command([*flags, "--latent-dim", "3", "--out", "c", "--init-from", "a"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("fastvae: error: a is of another network: encoder")
    assert "there and" in error
    assert "more: give the settings of that network, or other weights" in error
    assert not (tmp_path / "c").exists()


def test_what_does_not_fit_names_the_first_few(fit, tmp_path):
    state = make_model().state_dict()
    renamed = saved(tmp_path / "x.pt", {f"module.{name}": tensor for name, tensor in state.items()})
    with pytest.raises(InputError, match=r"is missing there and \(.*\) here, .*, and 5 more: give") as error:
        fit(init_from=renamed)
    assert str(error.value).count(" there and ") == 3
    nan = saved(tmp_path / "nan.pt", {name: tensor * torch.nan for name, tensor in state.items()})
    with pytest.raises(InputError, match="with values that are NaN or infinite"):
        fit(init_from=nan)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nan.pt", "x.pt"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.pt", b"", "not in the format of torch.save"),
        ("x.pt", {"a": {"w": torch.ones(1)}, "b": {"w": torch.ones(1)}}, "several state dicts"),
        ("x.pt", {"epoch": 3}, "holds no state dict"),
        ("x.pt", torch.ones(3), "holds no state dict"),
        ("x.safetensors", b"", "cannot be read as safetensors"),
        ("x.gguf", b"GGUF", "not in the format of torch.save"),
    ],
)
def test_files_without_weights(name, content, message, tmp_path):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match=message):
        read_weights(path)


def test_there_is_no_such_thing(tmp_path):
    with pytest.raises(InputError, match="is not there: name"):
        read_weights(tmp_path / "x.pt")
    with pytest.raises(InputError, match="holds no checkpoint of a run"):
        read_weights(tmp_path)


def test_nothing_in_a_file_is_executed(tmp_path):
    made = tmp_path / "made"
    torch.save({"w": Evil(str(made))}, tmp_path / "x.pt")
    with pytest.raises(InputError, match="cannot be read as a state dict"):
        read_weights(tmp_path / "x.pt")
    assert not made.exists()


def test_a_file_that_unpacks_to_too_much(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTVAE_MAX_UNPACKED", "1K")
    with zipfile.ZipFile(tmp_path / "x.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(1 << 20))
    with pytest.raises(InputError, match="unpacks from"):
        read_weights(tmp_path / "x.pt")


def test_from_python_a_path_may_be_text(fit, tmp_path):
    source = saved(tmp_path / "x.pt", make_model().state_dict())
    assert fastvae.TrainConfig(init_from=str(source)).init_from == str(source)
    assert fit(init_from=str(source)).exists()
