"""How a model of one's own lies in memory: in channels_last where it has convolutions, with the same losses."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import fastvae
from fastvae.data import Dataset
from fastvae.train import TrainConfig, Trainer
from fastvae.train.config import resolve
from fastvae.train.step import memory_format
from fastvae.train.step.memory_format import choose_memory_format

LAST = torch.channels_last
CPU = torch.device("cpu")


class Viewed(nn.Module):
    """What many write for ``nn.Flatten()``, and torch refuses for channels_last."""

    def forward(self, x):
        return x.view(len(x), -1)


def norm(channels):
    return nn.Sequential(nn.GroupNorm(2, channels), nn.SiLU())


def pair(flatten=nn.Flatten, *, normed=norm, last=nn.Conv2d):
    """Of pictures 3 x 8 x 8."""
    torch.manual_seed(0)
    ending = last(8, 8, 3, 1, 1) if last is nn.Conv2d else last(8)
    encoder = nn.Sequential(nn.Conv2d(3, 8, 4, 2, 1), normed(8), ending, flatten(), nn.Linear(128, 8))
    opening = (nn.Linear(4, 128), nn.Unflatten(1, (8, 4, 4)), normed(8))
    return fastvae.VAE(encoder, nn.Sequential(*opening, nn.ConvTranspose2d(8, 3, 4, 2, 1)), latent_shape=4)


def perceptron():
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(192, 8))
    return fastvae.VAE(encoder, nn.Sequential(nn.Linear(4, 192), nn.Unflatten(1, (3, 8, 8))), latent_shape=4)


@pytest.fixture
def dataset():
    images = torch.randint(0, 256, (60, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Dataset("noise", images[10:], images[:10])


@pytest.fixture
def fit(tmp_path, dataset):
    """Train a model; returns the loss, and the model."""

    def call(model, name, quiet=True, **settings):
        settings = {"execution": "traced", **settings}
        config = TrainConfig(
            out=tmp_path / name, epochs=2, batch_size=10, lr=1e-2, autotune=False, precision="fp64", device="cpu",
            **settings,
        )  # fmt: skip
        outcome = Trainer(model, dataset, config, quiet=quiet).fit()
        assert outcome.status == 0
        return outcome.test.loss, model

    return call


@pytest.mark.parametrize("execution", ["eager", "traced"])
def test_convolutions_have_the_same_losses_in_channels_last(fit, execution, monkeypatch):
    model = pair()
    weights = list(model.parameters())
    loss, _ = fit(model, "last", execution=execution)
    assert all(after is before for after, before in zip(model.parameters(), weights, strict=True))
    monkeypatch.setattr(
        "fastvae.train.start.own_model.choose_memory_format", lambda model, dataset, *_: nullcontext((dataset, None))
    )
    plain, other = fit(pair(), "first", execution=execution)
    assert loss == pytest.approx(plain, rel=1e-9)
    for left, right in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-7)
    assert model.encoder[0].weight.is_contiguous(memory_format=LAST)
    assert model.encoder[2].weight.is_contiguous(memory_format=LAST)
    assert not other.encoder[2].weight.is_contiguous(memory_format=LAST)


def test_what_refuses_channels_last_keeps_nchw(fit, capsys):
    model = pair(Viewed)
    fit(model, "viewed", quiet=False)
    assert model.encoder[0].weight.is_contiguous()
    lines = [line for line in capsys.readouterr().out.splitlines() if "channels_last" in line]
    assert len(lines) == 1
    assert lines[0].startswith("fastvae: images stay in NCHW, as the model refuses channels_last: ")
    assert "view" in lines[0]
    fit(pair(Viewed), "quiet")
    assert capsys.readouterr().out == ""


class Strided(nn.Module):
    """Reads the memory of its input in the order of NCHW, which gives other numbers in channels_last, in silence."""

    def forward(self, x):
        return x.as_strided((len(x), 128), (128, 1))


def test_what_computes_something_else_in_channels_last_keeps_nchw(dataset):
    with choose_memory_format(pair(Strided), dataset, resolve(TrainConfig(execution="eager")), CPU) as (same, told):
        assert same is dataset
        assert "something else" in told


def test_a_model_whose_python_would_run_in_a_trial_keeps_nchw(fit, capsys):
    """fastvae cannot know what else a forward pass does: a trial could move a counter of its owner's."""
    calls = []

    class Counted(nn.Module):
        def forward(self, x):
            calls.append(len(x))
            return x

    model = pair(lambda: nn.Sequential(Counted(), Viewed()))
    fit(model, "counted", quiet=False, execution="eager")
    assert calls.count(10) == 10 + 3  # two epochs of five batches; ten images, evaluated twice and drawn at the end
    assert 2 not in calls
    assert "channels_last" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("execution", "flatten"),
    [
        *((execution, flatten) for execution in ("eager", "traced") for flatten in (nn.Flatten, Viewed)),
        pytest.param("compiled", Viewed, marks=pytest.mark.slow),
    ],
)
def test_a_norm_before_what_flattens_trains(fit, flatten, execution):
    """Whose output lies otherwise than torch foretells to a trace."""
    loss, model = fit(pair(flatten, last=norm), "it", execution=execution)
    assert model.encoder[0].weight.is_contiguous(memory_format=LAST) == (flatten is nn.Flatten)
    again, _ = fit(pair(flatten, last=norm), "again", execution="eager")
    assert loss == pytest.approx(again, rel=1e-9)


def test_what_is_laid_out(dataset):
    config = resolve(TrainConfig())
    model = pair(normed=nn.BatchNorm2d)
    state = torch.get_rng_state()
    with choose_memory_format(model, dataset, config, CPU) as (found, told):
        assert told is None
    assert found.train.images.is_contiguous(memory_format=LAST)
    assert found.test.images.is_contiguous(memory_format=LAST)
    assert torch.equal(found.train.images, dataset.train.images)
    assert model.encoder[1].num_batches_tracked == 0  # the trial is a copy's
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    with choose_memory_format(model := pair(Viewed), found, config, CPU) as (same, told):
        assert "view" in told
        assert same is found
        model.encode(found.train.images)
    with pytest.raises(RuntimeError, match="view"):  # the model is its owner's again
        model.encode(found.train.images)


@pytest.mark.parametrize("make", [perceptron, lambda: fastvae.VAE(nn.Conv2d(5, 2, 1), nn.Linear(1, 1))])
def test_without_convolutions_or_with_what_cannot_be_nothing_changes(make, dataset):
    with choose_memory_format(make(), dataset, resolve(TrainConfig()), CPU) as found:
        assert found == (dataset, None)


def test_the_trial_is_of_the_size_that_the_model_sees(dataset, tmp_path, monkeypatch):
    sizes = []
    attempt = memory_format._try
    monkeypatch.setattr(memory_format, "_try", lambda *given: sizes.append(given[2].shape) or attempt(*given))
    larger = Dataset("larger", *(split.images.repeat(1, 1, 2, 2) for split in (dataset.train, dataset.test)))
    config = TrainConfig(
        image_size=8, crop="random", epochs=1, batch_size=10, autotune=False, device="cpu", out=tmp_path / "run"
    )
    model = pair(normed=nn.BatchNorm2d)
    assert Trainer(model, larger, config, quiet=True).fit().status == 0
    assert sizes == [(3, 8, 8)] * 2
    assert model.encoder[0].weight.is_contiguous(memory_format=LAST)


def test_data_by_name_are_laid_out_too(dataset, tmp_path):
    np.save(tmp_path / "images.npy", dataset.train.images.numpy())
    model = pair(normed=nn.BatchNorm2d)
    config = TrainConfig(epochs=1, batch_size=10, autotune=False, execution="eager", device="cpu", out=tmp_path / "run")
    assert Trainer(model, str(tmp_path / "images.npy"), config, quiet=True).fit().status == 0
    assert model.encoder[2].weight.is_contiguous(memory_format=LAST)


@pytest.mark.parametrize("loader", ["torch", "resident"])
def test_pictures_in_files_are_for_models_that_refuse_channels_last_too(dataset, tmp_path, capsys, loader):
    (tmp_path / "pictures").mkdir()
    for place, image in enumerate(dataset.train.images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "pictures" / f"{place:02}.png")
    losses = []
    for flatten in (Viewed, nn.Flatten):
        out = tmp_path / f"{loader}-{flatten.__name__}"
        config = TrainConfig(
            image_size=8,
            loader=loader,
            epochs=2,
            batch_size=10,
            autotune=False,
            execution="traced",
            precision="fp64",
            device="cpu",
            out=out,
        )
        model = pair(flatten)
        losses.append(Trainer(model, str(tmp_path / "pictures"), config).fit().test.loss)
        assert model.encoder[0].weight.is_contiguous(memory_format=LAST) == (flatten is nn.Flatten)
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)
    assert capsys.readouterr().out.count("images stay in NCHW") == 1


def test_what_a_model_can_take_is_tried_on_the_runs_device(dataset, monkeypatch):
    """A GPU's convolutions have rules of their own, and its fused operations do not run on a CPU."""
    devices = set()

    class Seen(nn.Module):
        def forward(self, x):
            devices.add(x.device.type)
            return x

    monkeypatch.setattr(memory_format, "_alike", lambda *_: True)  # tensors on the meta device have no values
    model = pair(normed=lambda channels: nn.Sequential(norm(channels), Seen()))
    with choose_memory_format(model, dataset, resolve(TrainConfig()), torch.device("meta")):
        assert devices == {"meta"}
        assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
