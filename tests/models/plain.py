"""The objectives as their papers write them, in plain torch and fp64, and the inputs that both sides get."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from fastvae import VAE
from fastvae.models.objectives import OBJECTIVES

ROWS, PIXELS, LATENTS, SAMPLES, IMAGES = 6, 10, 4, 3, 50
OPTIONS = {
    "elbo": {"beta": 2.5},
    "iwae": {"samples": SAMPLES},
    "stl": {"samples": SAMPLES},
    "dreg": {"samples": SAMPLES},
    "capacity": {"capacity": 0.75, "beta": 3.0},
    "free-bits": {"free_bits": 0.05},
    "tcvae": {"beta": 4.0, "dataset_size": IMAGES},
}
WEIGHTED = ("iwae", "stl", "dreg")
OVER_ROWS = ("elbo", *WEIGHTED)
DIALS = ("beta", "capacity", "weight")


def model(likelihood="bernoulli", hidden=8):
    encoder = nn.Sequential(nn.Linear(PIXELS, hidden), nn.Tanh(), nn.Linear(hidden, 2 * LATENTS))
    decoder = nn.Sequential(nn.Linear(LATENTS, hidden), nn.Tanh(), nn.Linear(hidden, PIXELS))
    return VAE(encoder, decoder, likelihood).double()


def pictures(rows=ROWS):
    return torch.randint(0, 256, (rows, PIXELS), dtype=torch.uint8)


def draw(name, rows=ROWS):
    shape = (rows, SAMPLES, LATENTS) if name in WEIGHTED else (rows, LATENTS)
    return torch.randn(shape, dtype=torch.float64)


# The plain spellings: fp64, one posterior N(mu, exp(logvar)), losses as means over the batch.


def nll_of(vae, z, x):
    x = (x.double() / 255).expand(*z.shape[:-1], PIXELS)
    return F.binary_cross_entropy_with_logits(vae.decoder(z), x, reduction="none").sum(-1)


def kl_of(mu, logvar):
    return -0.5 * (1 + logvar - mu**2 - logvar.exp())


def log_normal(z, mu, logvar):
    return -0.5 * ((z - mu) ** 2 / logvar.exp() + logvar + math.log(2 * math.pi))


def plain_elbo(vae, x, mu, logvar, eps, beta):
    nll, kl = nll_of(vae, mu + eps * (logvar / 2).exp(), x).mean(), kl_of(mu, logvar).sum(1).mean()
    return nll + beta * kl, nll, kl


def plain_capacity(vae, x, mu, logvar, eps, capacity, beta):
    _, nll, kl = plain_elbo(vae, x, mu, logvar, eps, 1)
    return nll + beta * (kl - capacity).abs(), nll, kl


def plain_free_bits(vae, x, mu, logvar, eps, free_bits):
    _, nll, kl = plain_elbo(vae, x, mu, logvar, eps, 1)
    each = kl_of(mu, logvar).mean(0)
    assert 0 < (each < free_bits).sum() < LATENTS, "some should be free and some not, or the test shows nothing"
    return nll + each.clamp(min=free_bits).sum(), nll, kl


def plain_tcvae(vae, x, mu, logvar, eps, beta, dataset_size):
    _, nll, kl = plain_elbo(vae, x, mu, logvar, eps, 1)
    z, m = mu + eps * (logvar / 2).exp(), len(x) - 1
    tc = 0
    for i in range(len(x)):
        joint, marginals = 0, torch.zeros(LATENTS, dtype=torch.float64)
        for j in range(len(x)):
            w = 1 / m
            if j == i:
                w = 1 / dataset_size
            elif j == (i + 1) % len(x):
                w = (dataset_size - m) / (dataset_size * m)
            density = log_normal(z[i], mu[j], logvar[j]).exp()
            joint, marginals = joint + w * density.prod(), marginals + w * density
        tc = tc + joint.log() - marginals.log().sum()
    return nll + kl + (beta - 1) * tc / len(x), nll, kl


def plain_weighted(vae, x, mu, logvar, eps, samples, detach=False):
    """Also the log-weights (B, K), of which the estimators are made; ``detach``: q's parameters in log q."""
    mu, logvar = mu.unsqueeze(1), logvar.unsqueeze(1)
    z = mu + eps * (logvar / 2).exp()
    q = log_normal(z, *((mu.detach(), logvar.detach()) if detach else (mu, logvar))).sum(-1)
    nll, kl = nll_of(vae, z, x.unsqueeze(1)), q - log_normal(z, torch.tensor(0.0), torch.tensor(0.0)).sum(-1)
    log_weights = -nll - kl
    return -(log_weights.logsumexp(1) - math.log(samples)).mean(), nll.mean(), kl.mean(), log_weights


PLAIN = {"elbo": plain_elbo, "capacity": plain_capacity, "free-bits": plain_free_bits, "tcvae": plain_tcvae}


def plain(name, vae, x, eps, **options):
    """Bound, nll, kl, and the gradients of encoder and decoder."""
    both = [list(vae.encoder.parameters()), list(vae.decoder.parameters())]
    mu, logvar = vae.encode(x)
    if name not in WEIGHTED:
        bound, nll, kl = PLAIN[name](vae, x, mu, logvar, eps, **options)
        return bound, nll, kl, torch.autograd.grad(bound, both[0] + both[1])
    bound, nll, kl, log_weights = plain_weighted(vae, x, mu, logvar, eps, detach=name != "iwae", **options)
    if name != "dreg":
        return bound, nll, kl, torch.autograd.grad(bound, both[0] + both[1])
    # Tucker et al. 2018, equation 8: the squared weights for the encoder, with q's parameters constant in log q.
    squares = log_weights.softmax(1).detach() ** 2
    encoder = torch.autograd.grad(-(squares * log_weights).sum(1).mean(), both[0], retain_graph=True)
    return bound, nll, kl, (*encoder, *torch.autograd.grad(bound, both[1]))


def fused(name, vae, x, noise, **options):
    """The objective, and the gradients of encoder and decoder."""
    value = OBJECTIVES[name](vae, x, noise, **options)
    return value, torch.autograd.grad(value.loss, [*vae.encoder.parameters(), *vae.decoder.parameters()])


def assert_near(actual, expected, relative=1e-10):
    """Within a share of the tensor's largest magnitude."""
    assert actual.dtype == expected.dtype
    assert expected.abs().max() > 0
    assert (actual - expected).abs().max() <= relative * expected.abs().max()
