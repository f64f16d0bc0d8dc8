"""Each preset against its author's program, written out by hand: same layers, same loss, same gradients."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastvae.models import PRESETS, build

SHAPE, PIXELS, BATCH = (1, 28, 28), 784, 6


class Author(nn.Module):
    """The tutorials' common skeleton. ``stack`` is the encoder up to its heads, ``out`` the decoder."""

    def __init__(self, stack, heads, out):
        super().__init__()
        self.stack, self.heads, self.out = nn.Sequential(*stack), nn.ModuleList(heads), nn.Sequential(*out)

    def forward(self, x, eps):
        h = self.stack(x.view(-1, PIXELS))
        if len(self.heads) == 1:
            packed = self.heads[0](h)
            mu, logvar = torch.split(packed, packed.shape[1] // 2, dim=1)
        else:
            mu, logvar = (head(h) for head in self.heads)
        z = mu + eps * torch.exp(0.5 * logvar)
        return self.out(z), mu, logvar


def linear(*widths, act=nn.ReLU):
    return [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), act())]


def heads(width, latent):
    return [nn.Linear(width, latent), nn.Linear(width, latent)]


def kl_sum(mu, logvar):
    return -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())


def bce_sum_and_kl(x_hat, x, mu, logvar):
    return F.binary_cross_entropy(x_hat, x, reduction="sum") + kl_sum(mu, logvar)


def keras_loss(x_hat, x, mu, logvar):
    cross_entropy = 784 * F.binary_cross_entropy(x_hat, x, reduction="none").mean(-1)
    kl = -0.5 * torch.sum(1 + logvar - mu.square() - logvar.exp(), dim=-1)
    return torch.mean(cross_entropy + kl)


def gaussian_loss(x_hat, x, mu, logvar):
    sigma = torch.exp(0.5 * logvar)
    first = F.mse_loss(x_hat, x, reduction="sum")
    second = -torch.sum(1 + torch.log(sigma**2) - mu**2 - sigma**2)
    return (first + second) / len(x)


def leaky():
    return nn.LeakyReLU(0.2)


def end(a):
    return [nn.Linear(a, PIXELS), nn.Sigmoid()]


AUTHORS = {
    "basic": (
        lambda: Author(linear(784, 400), [nn.Linear(400, 40)], [*linear(20, 400), *end(400)]),
        bce_sum_and_kl,
    ),
    "keras": (lambda: Author(linear(784, 256), heads(256, 2), [*linear(2, 256), *end(256)]), keras_loss),
    "deep": (
        lambda: Author(linear(784, 400, 200), heads(200, 20), [*linear(20, 200, 400), *end(400)]),
        bce_sum_and_kl,
    ),
    "leaky": (
        lambda: Author(
            linear(784, 400, 400, act=leaky), heads(400, 200), [*linear(200, 400, 400, act=leaky), *end(400)]
        ),
        bce_sum_and_kl,
    ),
    "gaussian": (lambda: Author(linear(784, 200), heads(200, 20), [*linear(20, 200), *end(200)]), gaussian_loss),
    "classic": (lambda: Author(linear(784, 400), heads(400, 20), [*linear(20, 400), *end(400)]), bce_sum_and_kl),
    "iwae": (
        lambda: Author(
            linear(784, 200, 200, act=nn.Tanh), heads(200, 50), [*linear(50, 200, 200, act=nn.Tanh), *end(200)]
        ),
        bce_sum_and_kl,
    ),
}
RECIPES = {  # optimiser, its options, learning rate, batch size, epochs, as the tutorials have them (None: not given)
    "basic": ("adam", {}, None, None, None),
    "keras": ("rmsprop", {"alpha": 0.9, "eps": 1e-7}, 1e-3, None, None),
    "deep": ("adam", {}, 1e-3, 128, 20),
    "leaky": ("adam", {}, 1e-3, 100, 30),
    "gaussian": ("adam", {}, 3e-4, 32, 30),
    "classic": ("adam", {}, 1e-3, 128, 10),
    "iwae": ("adam", {"eps": 1e-4}, 1e-3, 20, 3280),
}


def test_every_preset_has_an_author():
    mlps = {name for name, preset in PRESETS.items() if preset.network == "mlp"}
    assert mlps == set(AUTHORS) == set(RECIPES)


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("preset", AUTHORS)
def test_loss_and_gradients_are_the_authors(preset, backend):
    recipe = PRESETS[preset]
    vae = build(recipe, SHAPE).double()
    make, formula = AUTHORS[preset]
    author = make().double()
    ours, theirs = list(vae.named_parameters()), list(author.parameters())
    with torch.no_grad():
        for (_, parameter), copy in zip(ours, theirs, strict=True):
            copy.copy_(parameter)
    images = torch.randint(0, 256, (BATCH, *SHAPE), dtype=torch.uint8)
    eps = torch.randn(BATCH, recipe.latent_dim, dtype=torch.float64)

    elbo = vae.loss(images, eps, reduction=recipe.reduction, weight=recipe.loss_weight, backend=backend)
    elbo.loss.backward()
    x = images.view(BATCH, PIXELS).double() / 255
    expected = formula(author(x, eps)[0], x, *author(x, eps)[1:])
    expected.backward()

    assert elbo.loss.item() == pytest.approx(expected.item(), rel=1e-10, abs=0)
    for (name, parameter), truth in zip(ours, theirs, strict=True):
        scale = truth.grad.abs().max()
        assert scale > 0
        assert (parameter.grad - truth.grad).abs().max() <= 1e-10 * scale, name


@pytest.mark.parametrize("preset", RECIPES)
def test_recipe_is_the_authors(preset):
    recipe = PRESETS[preset]
    found = (recipe.optimizer, dict(recipe.optimizer_options), recipe.lr, recipe.batch_size, recipe.epochs)
    for value, wanted in zip(found, RECIPES[preset], strict=True):
        assert wanted is None or value == wanted


@pytest.mark.parametrize(("preset", "width"), [("keras", 256), ("iwae", 200)])
def test_weights_start_as_glorot_and_bengio_draw_them(preset, width):
    vae = build(PRESETS[preset], SHAPE)
    first = vae.encoder[1]
    bound = (6 / (784 + width)) ** 0.5  # Glorot & Bengio 2010, equation 16
    assert first.bias.abs().max() == 0
    assert 0.98 * bound < first.weight.abs().max() <= bound


def test_only_the_iwae_papers_recipe_has_stages_and_binarises():
    assert {name for name, preset in PRESETS.items() if preset.schedule == "iwae"} == {"iwae"}
    assert {name for name, preset in PRESETS.items() if preset.binarize} == {"iwae", "conv28"}


def test_latent_dim_and_shape_are_free():
    vae = build(PRESETS["basic"], (3, 16, 16), latent_dim=5)
    mu, logvar = vae.encode(torch.rand(2, 3, 16, 16))
    assert mu.shape == logvar.shape == (2, 5)
    assert vae.sample(4).shape == (4, 3, 16, 16)
