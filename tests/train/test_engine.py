"""The engine: its state survives a resume, and it finds gradients that are not finite however they are summed."""

import re

import pytest
import torch
from torch import nn

import fastvae
from fastvae.data import Dataset, load
from fastvae.models import PRESETS, build
from fastvae.ops import Noise
from fastvae.train import TrainConfig, Trainer
from fastvae.train.checkpoint import checkpoint
from fastvae.utils.errors import InputError


class Steep(torch.autograd.Function):
    """The identity, whose gradient is infinite."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * float("inf")


class Layer(nn.Module):
    def forward(self, x):
        return Steep.apply(x)


def steep_model():
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 6))
    decoder = nn.Sequential(nn.Linear(3, 64), nn.Unflatten(1, (1, 8, 8)), Layer())
    return fastvae.VAE(encoder, decoder, latent_shape=3, likelihood="gaussian")


def newest(folder):
    return checkpoint.newest(folder / "checkpoints")[1]


def test_the_loss_scale_goes_on_as_it_was(train):
    flags = ("--precision", "fp16", "--execution", "eager", "--batch-size", "500")
    _, whole = train(*flags, "--max-steps", "5", out="whole")
    train(*flags, "--max-steps", "3", out="parts")
    before = newest(whole.parent / "parts").values["scaler"]
    _, parts = train(*flags, "--max-steps", "5", "--resume", out="parts")
    scaler = newest(whole).values["scaler"]
    assert newest(parts).values["scaler"] == scaler != before
    assert (scaler["scale"], scaler["_growth_tracker"]) != (2.0**16, 0)  # its first state
    for name, tensor in newest(whole).tensors.items():
        assert torch.equal(tensor, newest(parts).tensors[name]), name


@pytest.mark.parametrize("settings", [{}, {"clip_norm": 1.0}, {"accumulate": 2}], ids=str)
def test_a_gradient_that_is_not_finite_is_told_with_the_terms_of_a_sample(tmp_path, settings):
    images = load("digits").train[:40].float() / 255
    config = TrainConfig(
        out=tmp_path / "run", batch_size=40, autotune=False, device="cpu", epochs=1, precision="fp32",
        execution="eager", **settings,
    )  # fmt: skip
    with pytest.raises(InputError) as caught:
        Trainer(steep_model(), Dataset("mine", images, images), config, quiet=True).fit()
    found = re.match(
        r"step 1 has a gradient that is not finite \(loss ([\d.]+), nll ([\d.]+), kl ([\d.]+)\): ", str(caught.value)
    )
    assert found is not None, str(caught.value)
    loss, nll, kl = map(float, found.groups())
    # The run shuffles the images, so each meets another row's noise than here; the mean nll hardly depends on it.
    elbo = steep_model().loss(images, Noise(0), reduction="batchmean")
    assert kl == pytest.approx(elbo.kl.item(), rel=1e-4)
    assert nll == pytest.approx(elbo.nll.item(), rel=0.2)
    assert loss == pytest.approx(nll + kl, rel=1e-4)


def test_evaluation_is_the_mean_over_images_of_the_negative_elbo(train, metrics):
    _, folder = train("--epochs", "1", "--latent-dim", "2", "--beta", "4", "--binarize", "False")
    (_, line) = metrics(folder)
    model = build(PRESETS["classic"], (1, 8, 8), 2)
    model.load_state_dict(newest(folder).part("model"))
    elbo = model.loss(load("digits").test[:], Noise(0, 1, stream=1), reduction="batchmean")
    assert line["loss"] == pytest.approx(elbo.nll.item() + elbo.kl.item(), rel=1e-5)
    assert (line["nll"], line["kl"]) == pytest.approx((elbo.nll.item(), elbo.kl.item()), rel=1e-5)


# One of two processes has a layer whose gradient is infinite: the loss is finite in both.
WORK = """
import torch
from torch import nn
import fastvae
from fastvae.data import ResidentLoader
from fastvae.train.config import TrainConfig, resolve
from fastvae.train.engine import Engine

class Steep(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * float("inf")

class Layer(nn.Module):
    def forward(self, x):
        return Steep.apply(x)

def work(world):
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 6))
    decoder = nn.Sequential(nn.Linear(3, 64), *([Layer()] if world.rank == 1 else []))
    model = fastvae.VAE(encoder, nn.Sequential(decoder, nn.Unflatten(1, (1, 8, 8))), "gaussian", latent_shape=3)
    config = resolve(TrainConfig(batch_size=8, device="cpu", precision="fp32", execution="eager"))
    engine = Engine(model, config, world)
    images = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    loader = ResidentLoader(images, batch_size=8, seed=0, rank=world.rank, world_size=world.size)
    for batch in loader:
        engine.train_step(batch)
    report = engine.nonfinite.report(world)
    assert (report.found, report.step) == (1, 1), report
    assert 0 < report.loss < 1e4, report
    assert abs(report.loss - report.nll - report.kl) < 1e-3, report
    told = world.all_gather_object([report.loss, report.nll, report.kl])
    assert told[0] == told[1], told
    assert all(map(torch.equal, before, model.parameters()))
"""


def test_both_processes_find_the_gradient_of_one(in_processes):
    in_processes(WORK, 2)
