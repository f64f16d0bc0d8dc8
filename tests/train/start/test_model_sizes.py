"""Sizes of a user's own model that do not fit are one line before the run, and nothing else of it is judged."""

import math
import random
import threading

import numpy as np
import pytest
import torch
from torch import nn

from fastvae.data import Dataset
from fastvae.models import VAE
from fastvae.nn import Bernoulli, ContinuousBernoulli, Gaussian
from fastvae.train import TrainConfig, Trainer
from fastvae.train.start.model_sizes import check_sizes
from fastvae.utils.errors import InputError
from fastvae.utils.terminal import Terminal


def vae(outputs=8, latents=4, shape=(1, 8, 8), pixels=64, latent_shape=4):
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(pixels, outputs))
    decoder = nn.Sequential(nn.Linear(latents, math.prod(shape)), nn.Unflatten(1, shape))
    return VAE(encoder, decoder, latent_shape=latent_shape)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            vae(outputs=7),
            r"even dimension 1, but has \(2, 7\), given images of shape \(1, 8, 8\): give the encoder mu and logvar, "
            "twice as many as latents",
        ),
        (vae(outputs=6), r"mu of shape \(3,\) and logvar of \(3,\), but the latents' shape is \(4,\)"),
        (vae(latents=3), r"the decoder does not take latents of shape \(4,\).*2x4 and 3x64"),
        (vae(shape=(64,)), r"output of shape \(64,\) does not fit images of shape \(1, 8, 8\)"),
        (vae(shape=(1, 8, 9)), r"output of shape \(1, 8, 9\) does not fit images of shape \(1, 8, 8\)"),
        (vae(pixels=63), r"the encoder does not take images of shape \(1, 8, 8\) \(.*2x64 and 63x8"),
    ],
)
def test_sizes_that_do_not_fit_are_one_line_before_the_run(model, words, tmp_path):
    config = TrainConfig(epochs=1, autotune=False, device="cpu", out=tmp_path / "run")
    with pytest.raises(InputError, match=words) as caught:
        Trainer(model, torch.zeros(20, 1, 8, 8, dtype=torch.uint8), config, quiet=True).fit()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_tensors_with_channels_last_are_told_to_permute():
    model = vae()
    model.encoder[0] = nn.Sequential(nn.Conv2d(3, 1, 1), nn.Flatten())
    dataset = Dataset("x", torch.zeros(4, 8, 8, 3).byte(), torch.zeros(4, 8, 8, 3).byte())
    with pytest.raises(InputError, match=r"\(8, 8, 3\), read as \(C, H, W\): permute x if they are \(N, H, W, C\)"):
        check_sizes(model, dataset, torch.device("cpu"), Terminal())


def test_looking_at_sizes_changes_no_state_and_judges_no_other_failure():
    class Drawing(nn.Flatten):
        count = 0

        def forward(self, x):
            self.count += 1
            return super().forward(x) + random.random() + np.random.rand() + torch.rand(())

    class Broken(nn.Flatten):
        def forward(self, x):
            raise RuntimeError("none of your business")

    dataset = Dataset("x", torch.zeros(4, 1, 8, 8).byte(), torch.zeros(4, 1, 8, 8).byte())
    model = vae(latent_shape=None)
    model.encoder[0] = Drawing()
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    check_sizes(model, dataset, torch.device("cpu"), Terminal())
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    assert (model.encoder[0].count, model.latent_shape) == (0, (4,))
    for part in (Broken(), nn.Sequential()):
        part.lock = threading.Lock() if isinstance(part, nn.Sequential) else None  # which cannot be copied
        model.encoder[0] = part
        check_sizes(model, dataset, torch.device("cpu"), Terminal())


@pytest.mark.parametrize("likelihood", [Bernoulli(), ContinuousBernoulli(), Gaussian()])
@pytest.mark.parametrize("end", [nn.Sigmoid(), nn.ReLU(), nn.Identity()])
def test_probabilities_given_to_a_likelihood_of_logits_are_told(likelihood, end, tmp_path, capsys):
    torch.manual_seed(0)
    model = vae()
    model.decoder.append(end)
    model.likelihood = likelihood
    config = TrainConfig(epochs=1, autotune=False, device="cpu", out=tmp_path / "run")
    Trainer(model, torch.zeros(20, 1, 8, 8, dtype=torch.uint8), config).fit()
    said = "takes logits: leave out a sigmoid" in " ".join(capsys.readouterr().out.split())
    assert said == (not isinstance(likelihood, Gaussian) and not isinstance(end, nn.Identity))


def test_logits_that_are_initialized_with_zeros_are_not_taken_for_probabilities(capsys):
    model = vae()
    nn.init.zeros_(model.decoder[0].weight)
    nn.init.zeros_(model.decoder[0].bias)
    images = torch.zeros(20, 1, 8, 8, dtype=torch.uint8)
    check_sizes(model, Dataset("images", images, images), torch.device("cpu"), Terminal())
    assert "sigmoid" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["latent_dim", "width"])
def test_sizes_of_a_preset_are_refused(name, tmp_path):
    config = TrainConfig(preset="conv28", epochs=1, autotune=False, device="cpu", out=tmp_path / "run", **{name: 16})
    with pytest.raises(InputError, match=f"^{name} is 16, but a model of your own has the sizes"):
        Trainer(vae(), torch.zeros(20, 1, 8, 8, dtype=torch.uint8), config, quiet=True).fit()
    assert not (tmp_path / "run").exists()


class Unreadable(nn.Flatten):
    """A forward pass that cannot be recorded, so that nothing runs it before the first step."""

    calls = 0

    def forward(self, x):
        Unreadable.calls += 1
        return super().forward(x)


@pytest.mark.parametrize(("pixels", "words"), [(63, "does not take images of shape"), (64, None)])
def test_a_model_with_python_state_is_judged_by_its_first_step(pixels, words, tmp_path):
    model = vae(pixels=pixels, latent_shape=None)
    model.encoder[0] = Unreadable()
    config = TrainConfig(epochs=1, batch_size=20, device="cpu", out=tmp_path / "run")
    Unreadable.calls = 0
    trainer = Trainer(model, torch.zeros(20, 1, 8, 8, dtype=torch.uint8), config, quiet=True)
    if words is None:
        assert trainer.fit().status == 0
        assert model.latent_shape == (4,)
        assert Unreadable.calls == 4  # a step, an evaluation and two figures
        return
    with pytest.raises(InputError, match=words):
        trainer.fit()
    assert not (tmp_path / "run").exists()


def unreadable(**sizes):
    """Return a model that nothing runs before its first step."""
    model = vae(**sizes)
    model.encoder[0] = Unreadable()
    return model


def test_latents_of_another_shape_are_one_line_in_the_first_step(tmp_path):
    model = unreadable(latent_shape=7)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    config = TrainConfig(epochs=1, device="cpu", out=tmp_path / "run")
    with pytest.raises(InputError, match=r"mu of shape \(4,\).*the latents' shape is \(7,\).*change latent_shape"):
        Trainer(model, torch.zeros(20, 1, 8, 8, dtype=torch.uint8), config, quiet=True).fit()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.decoder._forward_hooks


def test_the_first_step_finds_the_latents_and_probabilities(tmp_path, capsys):
    model = unreadable(latent_shape=None)
    model.decoder.append(nn.Sigmoid())
    shapes = []

    def note(end):
        shapes.append(model.latent_shape)

    config = TrainConfig(epochs=1, device="cpu", out=tmp_path / "run")
    Trainer(model, torch.zeros(20, 1, 8, 8, dtype=torch.uint8), config, callbacks=[note]).fit()
    assert shapes == [(4,)]
    assert "takes logits: leave out a sigmoid" in " ".join(capsys.readouterr().out.split())


def test_a_decoder_of_ones_own_loss_may_take_more_than_latents(tmp_path):
    class Conditional(VAE):
        def loss(self, x, noise=None, **options):
            return super().loss(x, noise, **options)

    model = unreadable(latent_shape=7)
    model = Conditional(model.encoder, model.decoder, latent_shape=7)
    model.sample = lambda count, noise=None: torch.zeros(count, 1, 8, 8)
    config = TrainConfig(epochs=1, device="cpu", out=tmp_path / "run")
    Trainer(model, torch.zeros(20, 1, 8, 8, dtype=torch.uint8), config, quiet=True).fit()


def test_rows_of_a_table_are_told_what_the_network_is_given(tmp_path):
    model = VAE(nn.Linear(12, 8), nn.Linear(4, 12))
    config = TrainConfig(epochs=1, autotune=False, device="cpu", out=tmp_path / "run")
    with pytest.raises(InputError, match=r"as a table's rows are delivered: begin the encoder with nn.Flatten\(\)"):
        Trainer(model, torch.rand(20, 12), config, quiet=True).fit()
