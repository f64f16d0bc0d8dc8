"""Settings given from Python."""

import re
from pathlib import Path

import pytest

from fastvae.models import PRESETS
from fastvae.train.config import TrainConfig, resolve, settle
from fastvae.utils.errors import InputError
from fastvae.utils.settings import check_types


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("precision", "fp8"), ("execution", "fast"), ("schedule", "cosin"), ("beta_schedule", "warm"),
        ("loader", "dally"), ("on_nonfinite", "ignore"), ("parallel", "fsdp2"), ("objective", "elboo"),
        ("preset", "leeky"), ("batch_size", "12"), ("seed", 1.5), ("optimizer", 5), ("epochs", [1]), ("lr", "1e-3"),
        ("epochs", True), ("lr", False), ("flip", 1), ("device", "cpux"), ("out", 3), ("width", -3),
        ("precision", ["fp32"]),
        ("optimizer_options", {"eps": "x"}), ("seed", -1), ("beta", float("nan")), ("precision", "bf15"),
    ],
)  # fmt: skip
def test_settings_from_python_are_looked_at(name, value):
    with pytest.raises(InputError, match=rf"^{name} is {re.escape(repr(value))}"):
        TrainConfig(**{name: value})


def test_paths_from_python_may_be_text():
    assert resolve(TrainConfig(out="runs/x", data_dir="data")).out == Path("runs/x")


@pytest.mark.parametrize("preset", PRESETS)
def test_nothing_is_left_open_once_resolved_and_settled(preset):
    resolved = resolve(TrainConfig(preset=preset))
    check_types(resolved)  # its types are narrower
    settled = settle(resolved, "fp32", "eager")
    check_types(settled)
    assert (settled.precision, settled.execution) == ("fp32", "eager")
    assert resolve(resolved) == resolved


def test_the_presets_values_are_those_of_its_recipe():
    resolved = resolve(TrainConfig(preset="keras", lr=0.5))
    assert (resolved.lr, resolved.latent_dim, resolved.optimizer) == (0.5, 2, "rmsprop")
    assert resolved.optimizer_options == {"alpha": 0.9, "eps": 1e-7}
    assert resolve(TrainConfig(preset="keras", optimizer="Adam")).optimizer_options == {}
