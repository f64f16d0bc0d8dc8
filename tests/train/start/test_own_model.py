"""Models as other people write them: trained as a loop in plain torch would, or refused in one line."""

import random
import warnings

import pytest
import torch
from plain_torch import distance, train_in_plain_torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import fastvae
from fastvae.train import TrainConfig, Trainer
from fastvae.train.start import own_model

BATCH = 10
CALLS = []


def pictures(count=40):
    return torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class Encoder(nn.Module):
    """The plain one, which each of the others changes."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(64, 16)
        self.second = nn.Linear(16, 8)
        self.calls = 0
        self.random = random.Random(0)
        self.register_buffer("mean", torch.zeros(16))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("rotation", torch.tensor([0.6 + 0.8j]))

    def forward(self, x):
        return self.second(torch.tanh(self.first(x.flatten(1))))


class Counting(Encoder):
    def forward(self, x):
        self.calls += 1
        return super().forward(x) * min(1.0, self.calls / 6)


class CountingOutside(Encoder):
    def forward(self, x):
        CALLS.append(len(x))
        return super().forward(x) * (1 + len(CALLS) / 10)


class Drawing(Encoder):
    def forward(self, x):
        return super().forward(x if self.random.random() < 0.5 else x.flip(-1))


class Noisy(Encoder):
    def forward(self, x):
        return super().forward(x + 0.1 * torch.randn_like(x))


class Branching(Encoder):
    def forward(self, x):
        return super().forward(1 - x if x.mean() > 0.5 else x)


class Sometimes(Encoder):
    """Leaves a layer out of every other step, and has one that no step uses."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Linear(3, 3)
        self.extra = nn.Linear(16, 16)

    def forward(self, x):
        self.calls += self.training
        h = torch.tanh(self.first(x.flatten(1)))
        return self.second(self.extra(h) if self.calls % 2 else h)


class Keeping(Encoder):
    def forward(self, x):
        self.last = super().forward(x)
        return self.last


class Buffered(Encoder):
    """Changes buffers in place and by assignment."""

    def forward(self, x):
        h = torch.tanh(self.first(x.flatten(1)))
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * h.detach().mean(0)
            self.count += 1
        return self.second(h - self.mean)


class BufferedInPlace(Encoder):
    def forward(self, x):
        h = torch.tanh(self.first(x.flatten(1)))
        if self.training:
            self.mean.lerp_(h.detach().mean(0), 0.1)
        return self.second(h - self.mean)


class Complex(Encoder):
    def forward(self, x):
        return super().forward((x * self.rotation).abs())


class Viewing(Encoder):
    def forward(self, x):
        flat = x.view(len(x), -1)
        return self.second(torch.tanh(self.first(flat))) + flat[:, :8]


class Checkpointed(Encoder):
    reentrant = False

    def forward(self, x):
        h = checkpoint(self.first, x.flatten(1).requires_grad_(), use_reentrant=self.reentrant)
        return self.second(torch.tanh(h))


class CheckpointedAgain(Checkpointed):
    reentrant = True


class Hooked(Encoder):
    def __init__(self):
        super().__init__()
        self.first.register_forward_hook(lambda module, given, output: output * 1.5)
        self.second.register_full_backward_hook(lambda module, given, gradient: (given[0] * 0.5,))
        self.second.weight.register_hook(lambda gradient: gradient.clamp(-1, 1))
        self.first.weight.register_post_accumulate_grad_hook(self.doubled)

    @staticmethod
    def doubled(weight):
        weight.grad.mul_(2)

    def forward(self, x):
        h = torch.tanh(self.first(x.flatten(1)))
        if h.requires_grad:
            h.register_hook(lambda gradient: gradient * 3)
        return self.second(h)


class Clamped(Encoder):
    def forward(self, x):
        if self.training:
            with torch.no_grad():
                self.first.weight.clamp_(-0.1, 0.1)
        return super().forward(x)


def normed(norm, *, warm=False):
    def make():
        encoder = Encoder()
        norm(encoder.first)
        if warm:  # torch makes the weight of the old norms in the first forward pass
            encoder(torch.zeros(1, 64))
        return encoder

    return make


def partly_frozen():
    encoder = Encoder()
    encoder.first.requires_grad_(False)
    return encoder


def in_eval_mode():
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 8))
    encoder[2].running_mean.fill_(0.3)
    encoder[2].eval()
    return encoder


OLD_NORMS = [nn.utils.weight_norm, nn.utils.spectral_norm]
NORMS = [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm]
MAKERS = {
    **{kind.__name__: kind for kind in Encoder.__subclasses__() if kind is not CountingOutside},
    "Encoder": Encoder,
    "CheckpointedAgain": CheckpointedAgain,
    **{f"old {norm.__name__}": normed(norm, warm=True) for norm in OLD_NORMS},
    **{norm.__name__: normed(norm) for norm in (*NORMS, nn.utils.parametrizations.orthogonal)},
    "partly frozen": partly_frozen,
    "in eval mode": in_eval_mode,
}
# The rest are eager: their forward passes do more than compute.
RECORDED = {
    "Encoder", "Noisy", "BufferedInPlace", "Complex", "Viewing", "partly frozen", "in eval mode", "weight_norm",
    "orthogonal",
}  # fmt: skip


def build(make, likelihood="bernoulli"):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the old norms are deprecated
        encoder = make()
    decoder = nn.Sequential(nn.Linear(4, 64), nn.Unflatten(1, (1, 8, 8)))
    return fastvae.VAE(encoder, decoder, likelihood, latent_shape=4).double()


@pytest.fixture
def fit(tmp_path):
    """Train a model, and return its state dict."""

    def call(model, images=None, name="run", **settings):
        defaults = {"epochs": 2, "batch_size": BATCH, "lr": 1e-2, "device": "cpu", "seed": 0, "optimizer": "adam"}
        config = TrainConfig(**{**defaults, "out": tmp_path / name, **settings})
        images = pictures() if images is None else images
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # reentrant checkpoints warn where nothing needs a gradient
            assert Trainer(model, (images, images[:9]), config).fit().status == 0
        return {key: value.detach().clone() for key, value in model.state_dict().items()}

    return call


@pytest.fixture
def _any_length(monkeypatch):
    monkeypatch.setattr(own_model, "_WORTH_RECORDING", 0)


@pytest.mark.usefixtures("_any_length")
@pytest.mark.parametrize("name", MAKERS)
def test_each_kind_is_trained_as_plain_torch_trains_it(name, fit, capsys):
    expected = train_in_plain_torch(build(MAKERS[name]), pictures(85), batch_size=BATCH, lr=1e-2)
    found = fit(build(MAKERS[name]), pictures(85), epochs=1)
    said = capsys.readouterr().out
    assert distance(expected, found) < 1e-6
    assert (", eager (the model " in said) == (name not in RECORDED), said
