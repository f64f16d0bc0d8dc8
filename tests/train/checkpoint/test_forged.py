"""Checkpoints and settings that somebody forged are refused in one line."""

import json
import math

import pytest
import torch

from fastvae.train.checkpoint import checkpoint
from fastvae.train.checkpoint.checkpoint import Checkpoint

from .refusal import GO_ON, refusal


def forge(run, change):
    """Change the newest checkpoint as its author could: the checksum is right."""
    path, found, _ = checkpoint.newest(run / "checkpoints")
    tensors, values = dict(found.tensors), json.loads(json.dumps(found.values))
    change(tensors, values)
    path.unlink()
    checkpoint.write(path, Checkpoint(tensors, values))


def value(*path, to):
    def change(tensors, values):
        for key in path[:-1]:
            values = values[key]
        values[path[-1]] = to

    return change


def dropped(*path):
    def change(tensors, values):
        for key in path[:-1]:
            values = values[key]
        del values[path[-1]]

    return change


def tensor(name, to):
    def change(tensors, values):
        tensors[name] = to(tensors[name]) if callable(to) else to

    return change


def without(prefix):
    def change(tensors, values):
        for name in [name for name in tensors if name.startswith(prefix)]:
            del tensors[name]

    return change


def group(key, to):
    return value("optimizer", "groups", 0, key, to=to)


FORGED = {
    "gradients upside down": group("maximize", True),
    "another kind of Adam": group("amsgrad", True),
    "weights decay": group("weight_decay", 1e9),
    "no values": lambda tensors, values: values.clear(),
    "no optimiser state": without("optimizer."),
    "one moment is missing": without("optimizer.3.exp_avg_sq"),
    "another parameter": tensor("optimizer.99999999999.step", torch.zeros(())),
    "no number": tensor("optimizer.noint", torch.zeros(())),
    "no name": tensor("optimizer.5", torch.zeros(())),
    "a moment of another shape": tensor("optimizer.0.exp_avg", torch.zeros(3)),
    "betas are words": value("optimizer", "groups", 0, "betas", to=["x", "y"]),
    "other parameters": value("optimizer", "groups", 0, "params", to=[0, 0, 0]),
    "two groups": lambda tensors, values: values["optimizer"]["groups"].append({}),
    "groups are none": value("optimizer", "groups", to=None),
    "step is a word": value("step", to="x"),
    "step is negative": value("step", to=-5),
    "epoch of another life": value("epoch", to=10**9),
    "loader is empty": value("loader", to={}),
    "loader is none": value("loader", to=None),
    "best is a word": value("best", to="x"),
    "no epoch": dropped("epoch"),
    "no meter": dropped("meter"),
    "scaler is a list": value("scaler", to=[]),
    "weights in int8": lambda tensors, values: tensors.update(
        {name: each.to(torch.int8) for name, each in tensors.items() if name.startswith("model.")}
    ),
    "a weight is NaN": tensor("model.decoder.network.0.weight", lambda each: each.fill_(math.nan)),
    "no sums": without("sums"),
    "sums of another size": tensor("sums", torch.zeros(9)),
    "generator of noise": tensor("noise", torch.zeros(1)),
    "an odd generator": tensor("generator.cpu", lambda each: torch.full_like(each, 255)),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_checkpoint_is_one_line(train, run, capsys, name):
    tensors = checkpoint.newest(run / "checkpoints")[1].tensors
    if name == "a weight is NaN":
        weight = next(each for each in tensors if each.startswith("model.") and each.endswith("weight"))
        forge(run, tensor(weight, lambda each: each.fill_(math.nan)))
    else:
        forge(run, FORGED[name])
    assert train(*GO_ON)[0] == 2
    refusal(capsys)


def test_a_meter_may_have_more_than_is_known(train, run):
    forge(run, value("meter", "__class__", to="x"))
    assert train(*GO_ON)[0] == 0


SETTINGS = {
    "data": 7, "data_dir": 5, "seed": "a", "image_size": "8", "preset": "evil", "binarize": 3, "latent_dim": [],
    "optimizer_options": "x", "beta": None,
}  # fmt: skip


@pytest.mark.parametrize("command", ["sample", "evaluate", "train"])
@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        *SETTINGS.items(), ("seed", -1), ("seed", 10**30), ("image_size", -1), ("latent_dim", 0), ("lr", 10**400),
        ("optimizer_options", {"eps": 10**400}),
    ],
)  # fmt: skip
def test_forged_settings_are_one_line(train, run, capsys, command, name, wrong):
    from fastvae.cli import run as run_cli  # noqa: PLC0415

    content = json.loads((run / "config.json").read_text())
    content["settings"][name] = wrong
    (run / "config.json").write_text(json.dumps(content))
    assert (train(*GO_ON)[0] if command == "train" else run_cli([command, str(run)])) == 2
    assert "config.json" in refusal(capsys) or command == "train"


@pytest.mark.parametrize(
    "shape", [5, [], [1, 8], [1, 10**6, 10**6], [-1, 8, 8], ["a", 8, 8], [1, 8, 2**62], [True, 8, 8], [0, 8, 8]]
)
def test_forged_shapes_are_one_line(run, capsys, shape):
    from fastvae.cli import run as run_cli  # noqa: PLC0415

    content = json.loads((run / "config.json").read_text())
    content["data"]["shape"] = shape
    (run / "config.json").write_text(json.dumps(content))
    assert run_cli(["sample", str(run)]) == 2
    refusal(capsys)
