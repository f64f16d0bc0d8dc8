"""The recipes of the presets for pictures, number by number: a changed number changes the curves of every user."""

import pytest

from fastvae.models import PRESETS
from fastvae.train.config import TrainConfig, resolve

COLOUR = {
    "image_size": 64, "width": 32, "latent_dim": 16, "batch_size": 64, "epochs": 20, "lr": 3e-4, "schedule": "cosine",
    "optimizer": "adam", "beta": 1.0, "beta_schedule": "warmup", "beta_steps": 1000, "binarize": False,
}  # fmt: skip
SETTINGS = {
    "conv64": COLOUR,
    "resnet64": COLOUR,
    "ladder": COLOUR,
    "conv28": {
        "image_size": 28, "width": 24, "latent_dim": 32, "batch_size": 128, "epochs": 20, "lr": 2e-3,
        "schedule": "cosine", "optimizer": "adam", "beta": 1.0, "beta_schedule": "constant", "beta_steps": None,
        "binarize": True,
    },
}  # fmt: skip


def test_they_are_all_here():
    assert {name for name, preset in PRESETS.items() if preset.network != "mlp"} == set(SETTINGS)


@pytest.mark.parametrize("preset", SETTINGS)
def test_a_run_has_the_recipe_s_settings(preset):
    config = resolve(TrainConfig(preset=preset))
    assert {name: getattr(config, name) for name in SETTINGS[preset]} == SETTINGS[preset]
    recipe = PRESETS[preset]
    assert (recipe.reduction, recipe.loss_weight) == ("batchmean", 1.0)
    assert recipe.likelihood == ("bernoulli" if preset == "conv28" else "mixture")
    assert recipe.flat == (preset == "conv28")


def test_the_mlps_minimise_the_sum_or_the_mean_as_their_authors_do():
    found = {
        name: (preset.reduction, preset.loss_weight) for name, preset in PRESETS.items() if preset.network == "mlp"
    }
    ones = dict.fromkeys(("basic", "deep", "leaky", "classic", "iwae"), ("sum", 1.0))
    assert found == ones | {"keras": ("batchmean", 1.0), "gaussian": ("batchmean", 2.0)}
    assert all(preset.beta_warmup is None for name, preset in PRESETS.items() if preset.network == "mlp")


def test_a_warm_up_is_the_preset_s_unless_another_is_asked_for():
    steps = [
        resolve(TrainConfig(preset="conv64", **settings)).beta_steps
        for settings in ({}, {"beta_steps": 7}, {"beta_schedule": "constant"})
    ]
    assert steps == [1000, 7, None]
