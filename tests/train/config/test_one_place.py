"""A setting, an objective or a preset that is declared in one place is known everywhere."""

import importlib
import json
from dataclasses import asdict, dataclass, fields

import pytest
import torch

from fastvae import objectives
from fastvae.data import Batch, ResidentLoader, load
from fastvae.data.config import DataConfig
from fastvae.models import Preset, build, objective_specs, presets
from fastvae.models.objectives import OBJECTIVES, ObjectiveSpec
from fastvae.parity.config import ParityConfig
from fastvae.train.config import ResolvedConfig, TrainConfig, resolve, stored_settings
from fastvae.train.config.resume import changes_of
from fastvae.train.distributed.world import World
from fastvae.train.measure import autotune
from fastvae.train.report.run_config import read_config
from fastvae.train.step.loss import StepLoss, StepScalars
from fastvae.utils.errors import InputError
from fastvae.utils.settings import check_types, describe, marked, setting
from fastvae.utils.settings.command_line import parse

CPU = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))


@dataclass(frozen=True, kw_only=True)
class More:
    """The one more setting."""

    sharpness: float = setting(
        2.0,
        group="model",
        help="Sharpness of the decoder.",
        low=1,
        fixes_numbers=True,
        kept="it is cut so",
        affects_speed=True,
    )


@dataclass(frozen=True, kw_only=True)
class Extended(More, TrainConfig):
    """Settings with one more."""


@dataclass(frozen=True, kw_only=True)
class ExtendedResolved(More, ResolvedConfig):
    """The same, resolved."""


def help_of(cls, capsys):
    with pytest.raises(SystemExit):
        parse(cls, ["--help"], program="fastvae train")
    return " ".join(capsys.readouterr().out.replace("│", " ").split())


@pytest.fixture
def extended(monkeypatch):
    """The settings with one more, where a run takes them."""
    monkeypatch.setattr(importlib.import_module("fastvae.train.config.resolve"), "ResolvedConfig", ExtendedResolved)
    monkeypatch.setattr(stored_settings, "TrainConfig", Extended)
    monkeypatch.setattr(importlib.import_module("fastvae.train.config.resume"), "TrainConfig", Extended)
    return Extended


def test_a_setting_has_its_flag_and_its_range(extended, capsys):
    assert "--sharpness FLOAT Sharpness of the decoder. (default: 2.0)" in help_of(extended, capsys)
    assert resolve(parse(extended, ["--sharpness", "3"], program="fastvae train")).sharpness == 3.0
    with pytest.raises(InputError, match=r"sharpness is 0\.5: it must be a finite number, 1 or more"):
        extended(sharpness=0.5)
    with pytest.raises(InputError, match="sharpness is 'high', of the wrong type, str: it must be a number"):
        extended(sharpness="high")


def test_a_setting_that_fixes_numbers_says_what_becomes_of_it_at_resume():
    described = describe(TrainConfig)
    for name in {*marked(TrainConfig(schedule="cosine"), "fixes_numbers")}:
        assert (described[name].kept is None) != (described[name].at_resume is None), name


def test_a_setting_that_is_kept_cannot_change_at_resume(extended, tmp_path):
    settings = asdict(resolve(TrainConfig()))
    assert settings["sharpness"] == 2.0
    described = {"settings": settings, "data": {"shape": [1, 8, 8]}}
    (tmp_path / "config.json").write_text(json.dumps(described))
    assert changes_of(tmp_path, read_config(tmp_path)["settings"], resolve(TrainConfig())) == {}
    with pytest.raises(InputError, match=r"with --sharpness 2\.0 and cannot go on with 3\.0, as it is cut so: leave"):
        changes_of(tmp_path, read_config(tmp_path)["settings"], resolve(extended(sharpness=3.0)))
    del settings["sharpness"]  # as a run of an older version
    (tmp_path / "config.json").write_text(json.dumps(described))
    assert changes_of(tmp_path, read_config(tmp_path)["settings"], resolve(TrainConfig())) == {}


def test_a_setting_that_affects_speed_is_tried_anew(extended):
    model = build(TrainConfig().recipe, (1, 8, 8))
    images = load("digits").train
    loader = ResidentLoader(images, batch_size=8, seed=0)
    batch = Batch(images[:8], 8, 0)

    def key(**settings):
        return autotune._key(resolve(extended(**settings)), model, batch, loader, 100, CPU)

    assert key() == key(seed=5, lr=0.1)
    assert len({key(), key(sharpness=3.0), key(compress="bf16"), key(optimizer_options={"eps": 0.1})}) == 4


def test_what_resume_what_autotuning_and_what_evaluation_ask_about():
    """As it is; a new setting is added here once it has been thought about."""
    fixed = (
        "data", "image_size", "channels", "crop", "flip", "on_bad_image", "preset", "latent_dim", "width", "binarize",
        "objective", "beta", "beta_schedule", "beta_steps", "samples", "free_bits", "capacity", "capacity_steps",
        "batch_size", "lr", "optimizer", "optimizer_options", "schedule", "warmup_steps", "decay", "decay_epochs",
        "clip_norm", "ema", "seed",
    )  # fmt: skip
    config = TrainConfig(schedule="constant")
    assert set(marked(config, "fixes_numbers")) == set(fixed)
    assert set(marked(TrainConfig(schedule="cosine"), "fixes_numbers")) == {*fixed, "epochs", "max_steps"}
    assert set(marked(config, "affects_speed")) == {
        "batch_size", "precision", "execution", "backend", "optimizer", "optimizer_options", "schedule", "parallel",
        "beta_schedule", "objective", "samples", "accumulate", "clip_norm", "ema", "binarize", "tf32", "replay", "crop",
        "flip", "compress",
    }  # fmt: skip
    assert marked(config, "decides_images") == ("data", "image_size", "channels", "crop", "on_bad_image")
    assert set(marked(config, "describes_machine")) == {
        "data_dir", "cache", "out", "resume", "nproc", "max_restarts", "device", "backend", "init_from",
    }  # fmt: skip
    assert set(marked(config, "of_each_start")) == {
        "out", "resume", "nproc", "max_restarts", "device", "backend", "profile",
    }  # fmt: skip
    assert {field.name for field in fields(DataConfig)} < describe(TrainConfig).keys()


@pytest.fixture
def sharp(monkeypatch):
    """An objective of this test's own."""

    def sharp_elbo(vae, x, noise=None, *, beta, samples=7, **options):
        assert samples in (7, 3)
        return objectives.elbo(vae, x, noise, beta=beta * samples, **options)

    spec = ObjectiveSpec(sharp_elbo, scalars=("beta",), options=("samples",))
    monkeypatch.setitem(objective_specs._OBJECTIVES, "sharp", spec)
    assert OBJECTIVES["sharp"] is spec


def test_an_objective_is_known_by_its_registration(sharp, capsys):
    assert "tcvae,sharp}" in help_of(TrainConfig, capsys)
    config = resolve(parse(TrainConfig, ["--objective", "sharp", "--beta", "2"], program="fastvae train"))
    assert config.objective_options(100) == {}
    given = resolve(TrainConfig(objective="sharp", samples=3))
    assert given.objective_options(100) == {"samples": 3}
    with pytest.raises(InputError, match=r"^capacity is 3\.0, but objective='sharp' has none"):
        resolve(TrainConfig(objective="sharp", capacity=3.0))
    with pytest.raises(InputError, match="preset ladder has two levels of latents, but objective='sharp'"):
        resolve(TrainConfig(preset="ladder", objective="sharp"))


def test_an_objective_is_trained_by_its_registration(sharp):
    model = build(TrainConfig().recipe, (1, 8, 8))
    images = load("digits").train[:5]
    state = torch.tensor([0, 0], dtype=torch.int64)
    scalars = StepScalars(*(torch.tensor(value) for value in (0.5, 2.0, 0.0)))
    _, sums = StepLoss(model, "auto", "sharp", {"samples": 3})(images, state, 0, 0, scalars)
    assert sums[0].item() == pytest.approx((sums[1] + 6 * sums[2]).item())


def test_a_preset_is_known_by_its_name_alone(monkeypatch, capsys):
    own = Preset(summary="tiny", hidden=(3,), latent_dim=2, epochs=4)
    monkeypatch.setitem(presets._PRESETS, "tiny", own)
    assert "ladder,tiny}" in help_of(TrainConfig, capsys)
    assert "iwae,tiny}" in help_of(ParityConfig, capsys)
    config = resolve(parse(TrainConfig, ["--preset", "tiny"], program="fastvae train"))
    check_types(config)
    assert (config.recipe, config.epochs, config.latent_dim) == (own, 4, 2)


@pytest.mark.parametrize("name", describe(TrainConfig))
def test_each_help_text_is_a_sentence(name):
    """It is understood without the flag's name beside it, and does not begin in the middle."""
    text = describe(TrainConfig)[name].help
    assert text[0].isupper()
    assert text.endswith(".")
    assert text.split()[0] not in {"Of", "What", "Whether", "Where", "Around", "How", "Which", "Who"}
    assert describe(TrainConfig)[name].group is not None
