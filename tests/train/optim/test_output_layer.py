"""A sharp likelihood reads fp32 in runs of 16 bits, and the other likelihoods pay nothing for it."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn

import fastvae
from fastvae.data import ResidentLoader
from fastvae.models import PRESETS, build
from fastvae.nn import (
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    Gaussian,
    GaussianHead,
    Laplace,
    LearnedGaussian,
    Likelihood,
    OptimalGaussian,
)
from fastvae.train.config import TrainConfig, resolve, settle
from fastvae.train.distributed.world import World
from fastvae.train.engine import Engine
from fastvae.train.optim.output_layer import computing_in_fp32, sharp_output

CPU = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))
LEVEL = 203  # of all pixels: 0.79608, which bf16 rounds by 0.2 of a bin
SHARP = {
    "discretized_logistic": (DiscretizedLogistic, [LEVEL / 255, -7.0]),
    "mixture": (lambda: DiscretizedLogisticMixture(1), [0.0, LEVEL / 255, -7.0]),
    "gaussian_head": (GaussianHead, [LEVEL / 255, 2 * math.log(5e-4)]),
    "learned_gaussian": (lambda: LearnedGaussian(2 * math.log(5e-4)), [LEVEL / 255]),
    "optimal_gaussian": (OptimalGaussian, [LEVEL / 255 - 1e-4]),
    "gaussian": (lambda: Gaussian(2.5e-7), [LEVEL / 255]),
    "laplace": (lambda: Laplace(5e-4), [LEVEL / 255]),
}
SMOOTH = {
    "bernoulli": (Bernoulli, [1.36]),
    "continuous_bernoulli": (ContinuousBernoulli, [4.7]),
    "categorical": (Categorical, torch.linspace(-9, 9, 256).sin().mul(5).tolist()),
    "gaussian": (Gaussian, [LEVEL / 255]),
    "laplace": (Laplace, [LEVEL / 255]),
}


class TwoHeads(nn.Module):
    """A decoder of a stranger: its output comes from several layers, and none of them is registered last."""

    def __init__(self, channels):
        super().__init__()
        self.outputs = nn.ModuleList(nn.Linear(4, 4) for _ in range(channels))
        self.hidden = nn.Linear(2, 4)

    def forward(self, z):
        h = torch.tanh(self.hidden(z))
        return torch.stack([layer(h) for layer in self.outputs], 1).unflatten(2, (2, 2))


class Grid(nn.Module):
    def forward(self, x):
        return x.unflatten(1, (-1, 2, 2))


def chain(channels):
    return nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Sequential(nn.Linear(4, 4 * channels), nn.Identity()), Grid())


def model(likelihood, parameters, decoder=chain):
    """Build a VAE of 2 x 2 pixels, whose decoder returns the parameters for any z."""
    torch.manual_seed(0)
    made = decoder(len(parameters))
    layers = list(made.outputs) if isinstance(made, TwoHeads) else [made[2][0]]
    for layer, biases in zip(layers, torch.tensor(parameters).chunk(len(layers)), strict=True):
        nn.init.zeros_(layer.weight)
        layer.bias.data = biases.repeat_interleave(4)
    return fastvae.VAE(nn.Sequential(nn.Flatten(), nn.Linear(4, 4)), made, likelihood(), latent_shape=2)


def first_nll(vae, precision, execution="traced"):
    """Return the mean nll of the first step on pixels of one level, per pixel."""
    config = settle(resolve(TrainConfig(device="cpu", batch_size=8)), precision, execution)
    engine = Engine(vae, config, CPU)
    images = torch.full((8, 1, 2, 2), LEVEL, dtype=torch.uint8)
    engine.train_step(ResidentLoader(images, batch_size=8, seed=0).fetch(0))
    return engine.sums[1].item() / 8 / 4


@pytest.mark.parametrize(("decoder", "execution"), [(chain, "traced"), (TwoHeads, "eager")], ids=["chain", "two heads"])
@pytest.mark.parametrize("name", SHARP)
def test_a_sharp_likelihood_reads_fp32(name, decoder, execution, monkeypatch):
    exact = first_nll(model(*SHARP[name], decoder), "fp32", execution)
    assert first_nll(model(*SHARP[name], decoder), "bf16", execution) == pytest.approx(exact, abs=1e-4)
    rounded = model(*SHARP[name], decoder)
    rounded.likelihood.is_sharp = False  # as before
    assert first_nll(rounded, "bf16", execution) > exact + 0.05


@pytest.mark.parametrize("name", SMOOTH)
def test_others_hardly_see_the_rounding(name):
    assert not SMOOTH[name][0]().is_sharp
    exact = first_nll(model(*SMOOTH[name]), "fp32")
    assert first_nll(model(*SMOOTH[name]), "bf16") == pytest.approx(exact, rel=2e-3, abs=2e-3)


def test_where_it_is():
    assert sharp_output(model(*SHARP["mixture"])) == "decoder.2.0"
    assert sharp_output(model(*SHARP["mixture"], TwoHeads)) == "decoder"
    assert sharp_output(model(*SMOOTH["bernoulli"])) is None
    found = {
        name: sharp_output(build(preset, (1, 28, 28) if preset.network == "mlp" else (3, 32, 32), 4))
        for name, preset in PRESETS.items()
    }
    in_fp32 = {name: place for name, place in found.items() if place is not None}
    assert in_fp32.keys() == {"conv64", "resnet64", "ladder"}
    for name, place in in_fp32.items():
        network = build(PRESETS[name], (3, 32, 32), 4)
        assert network.get_submodule(place) is network.decoder[-1][0]
    without_layers = fastvae.VAE(nn.Linear(2, 4), Grid(), DiscretizedLogistic())
    assert sharp_output(without_layers) is None


class Own(Likelihood):
    """A stranger's likelihood, of which nothing is known."""


def test_an_unknown_likelihood_counts_as_sharp():
    assert Own().is_sharp


def test_the_rest_of_the_decoder_is_in_16_bits_and_a_tied_weight_has_one_copy():
    vae = model(*SHARP["discretized_logistic"])
    config = settle(resolve(TrainConfig(device="cpu")), "bf16", "eager")
    engine = Engine(vae, config, CPU)
    copies = {weight.data_ptr() for weight in engine._weights.low_precision_copies}
    assert vae.decoder[0].weight.data_ptr() in copies
    assert not {weight.data_ptr() for weight in vae.decoder[2][0].parameters()} & copies
    tied = model(*SHARP["discretized_logistic"])
    tied.decoder[2][0].weight = tied.encoder[1].weight = nn.Parameter(torch.zeros(8, 4))
    tied.encoder.append(nn.Linear(8, 4))
    tied.encoder[1].bias = nn.Parameter(torch.zeros(8))
    assert math.isfinite(first_nll(tied, "bf16", "eager"))


def test_a_module_is_another_class_inside_the_context_alone():
    layer = nn.Linear(3, 2)
    x = torch.randn(5, 3)
    exact = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        with computing_in_fp32(layer):
            inside = type(layer)
            assert torch.equal(layer(x), exact)
            assert layer(x.bfloat16()).dtype == torch.float32
        with computing_in_fp32(layer):
            assert type(layer) is inside
        assert layer(x).dtype == torch.bfloat16
    assert type(layer) is nn.Linear
    with pytest.raises(RuntimeError), computing_in_fp32(layer):
        layer(x[:, :2])
    assert type(layer) is nn.Linear
    for same in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(same(x), layer(x))
