"""The settings of a run that resumes: its own, and in their place those that were given."""

from dataclasses import asdict

import pytest

from fastvae.train.config import Origin, TrainConfig, resolve
from fastvae.train.config.resume import changes_of, in_words, taken_over
from fastvae.train.config.schedules import plan
from fastvae.utils.errors import InputError
from fastvae.utils.settings import on_command_line
from fastvae.utils.settings.command_line import parse, typed_in


def stored(**settings):
    """The settings of a run, as its config.json has them."""
    return asdict(resolve(TrainConfig(**settings)))


def resumed(run, **given):
    return resolve(taken_over(TrainConfig(out="run", resume=True, **given), run))


def changes(run, **given):
    return changes_of("run", run, resumed(run, **given))


FULL = {
    "preset": "leaky", "data": "mnist", "data_dir": "files", "epochs": 7, "lr": 0.5, "batch_size": 64, "ema": 0.9,
    "objective": "iwae", "samples": 9, "schedule": "step", "decay_epochs": 3, "decay": 0.5, "patience": 4, "seed": 8,
    "precision": "bf16", "execution": "eager", "optimizer": "sgd", "optimizer_options": {"momentum": 0.9},
    "checkpoint_every": 70, "on_nonfinite": "skip", "clip_norm": 3.0, "accumulate": 2, "autotune": False,
}  # fmt: skip


def test_nothing_given_is_everything_as_it_was():
    config = resumed(stored(**FULL))
    for name, value in FULL.items():
        assert str(getattr(config, name)) == str(value), name
    assert changes(stored(**FULL)) == {}


def test_what_belongs_to_one_start_is_asked_for_anew():
    config = resumed(stored(nproc=4, max_restarts=2, out="elsewhere", profile=True, device="cpu", backend="reference"))
    assert (config.nproc, config.max_restarts, config.profile) == (None, 0, False)
    assert (config.device, config.backend, str(config.out)) == ("auto", "auto", "run")


@pytest.mark.parametrize(
    "given",
    [
        {"epochs": 9}, {"lr": 0.1}, {"beta": 2.0}, {"batch_size": 7}, {"schedule": "cosine"}, {"warmup_steps": 3},
        {"beta_schedule": "warmup", "beta_steps": 4}, {"clip_norm": 2.0}, {"precision": "fp64"}, {"accumulate": 3},
        {"objective": "free-bits", "free_bits": 2.0}, {"patience": 3}, {"on_bad_image": "skip"},
    ],
    ids=str,
)  # fmt: skip
def test_what_may_change_is_known_before_and_after(given):
    before = stored(precision="fp32")
    found = changes(before, **given)
    assert found.keys() == given.keys()
    assert found == {name: (before[name], value) for name, value in given.items()}


@pytest.mark.parametrize(
    "given",
    [
        {"preset": "deep"}, {"latent_dim": 3}, {"optimizer": "sgd"}, {"optimizer_options": {"eps": 0.1}}, {"ema": 0.5},
        {"binarize": True}, {"seed": 4}, {"flip": True}, {"channels": 1}, {"image_size": 16},
        {"width": 3, "preset": "conv64"},
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_change_says_why(given):
    name = "preset" if "preset" in given else next(iter(given))
    with (
        on_command_line(),
        pytest.raises(InputError, match=rf"run was trained with --{name.replace('_', '-')} .*, as it"),
    ):
        changes(stored(), **given)


def test_a_default_that_was_given_counts():
    assert changes(stored(beta=4.0)) == {}
    assert changes(stored(beta=4.0), beta=1.0) == {"beta": (4.0, 1.0)}
    assert changes(stored(patience=4), patience=None) == {"patience": (4, None)}
    assert changes(stored(lr=0.5), lr=None) == {}  # it leaves it open


def test_a_schedule_or_an_objective_takes_its_options_with_it():
    run = stored(schedule="step", decay_epochs=3, decay=0.5, beta=2.0, beta_schedule="warmup", beta_steps=5)
    assert changes(run, schedule="constant")["decay_epochs"] == (3, None)
    assert changes(run, beta_schedule="constant")["beta_steps"] == (5, None)
    assert changes(run, objective="iwae") == {
        "beta": (2.0, 1.0), "beta_schedule": ("warmup", "constant"), "beta_steps": (5, None),
        "objective": ("elbo", "iwae"),
    }  # fmt: skip
    with pytest.raises(InputError, match="objective='iwae' has no beta, but beta is 3"):
        changes(run, objective="iwae", beta=3.0)


def test_the_line_tells_what_is_inexact():
    run = stored()
    config = resumed(run, lr=0.1, epochs=9, patience=3)
    with on_command_line():
        assert in_words(changes_of("run", run, config), config) == (
            "--epochs 10 -> 9, --lr 0.001 -> 0.1 (the optimiser keeps its state), --patience None -> 3"
        )
    run = stored(schedule="cosine")
    config = resumed(run, epochs=9)
    assert "(the cosine of the learning rate is that of the new length)" in in_words(
        changes_of("run", run, config), config
    )


def test_flags_that_were_typed():
    typed = ["--batch-size", "3", "--lr=0.1", "--no-autotune", "--flip", "--resume", "--optimizer-options", "eps", "1"]
    assert typed_in(TrainConfig, typed) == {"batch_size", "lr", "autotune", "flip", "resume", "optimizer_options"}
    config = parse(TrainConfig, typed, program="fastvae train")
    assert config.given == typed_in(TrainConfig, typed)
    assert (config.lr, config.autotune, config.resume, config.seed) == (0.1, False, True, 0)


@pytest.mark.parametrize(
    ("typed", "resume", "out"),
    [
        (["--resume", "runs/a"], True, "runs/a"),
        (["--resume", "--out", "runs/a"], True, "runs/a"),
        (["--resume", "runs/a", "--out", "runs/a"], True, "runs/a"),
        (["--resume", "False", "--out", "runs/a"], False, "runs/a"),
    ],
)
def test_resume_may_name_the_folder(typed, resume, out):
    config = resolve(parse(TrainConfig, typed, program="fastvae train"))
    assert (config.resume, str(config.out)) == (resume, out)
    assert resolve(TrainConfig(resume="runs/a")).resume is True


def test_schedules_by_epoch_go_on_from_the_origin():
    config = resolve(TrainConfig(epochs=4, schedule="step", decay_epochs=1, decay=0.5, lr=1.0))
    assert plan(config, 3).rates.tolist() == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125, 0.125, 0.125]
    # After an epoch of 3 steps, 6 in each.
    rates = plan(config, 6, Origin(1, 3)).rates.tolist()
    assert rates[3:] == [0.5] * 6 + [0.25] * 6 + [0.125] * 6
    assert config.steps(6, Origin(1, 3)) == 21
