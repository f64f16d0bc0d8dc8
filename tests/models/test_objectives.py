"""Each objective against its paper's formula in plain torch, and what the papers promise of it."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

import fastvae
from fastvae import VAE, Noise, objectives
from fastvae.models.objectives import OBJECTIVES

from .plain import (
    DIALS,
    IMAGES,
    LATENTS,
    OPTIONS,
    OVER_ROWS,
    PIXELS,
    ROWS,
    SAMPLES,
    assert_near,
    draw,
    fused,
    log_normal,
    model,
    pictures,
    plain,
)


@pytest.mark.parametrize("weight", [1.0, 0.125])
@pytest.mark.parametrize("reduction", ["batchmean", "sum"])
@pytest.mark.parametrize("dials", [float, torch.tensor])
@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_value_and_gradients_are_the_papers(name, backend, dials, reduction, weight):
    vae, x, eps = model(), pictures(), draw(name)
    options = {key: dials(value) if key in DIALS else value for key, value in OPTIONS[name].items()}
    value, gradients = fused(name, vae, x, eps, **options, reduction=reduction, weight=dials(weight), backend=backend)
    *terms, expected = plain(name, vae, x, eps, **OPTIONS[name])
    rows = ROWS if reduction == "sum" else 1
    for actual, term in zip((value.bound, value.nll, value.kl), terms, strict=True):
        assert_near(actual, term.detach() * rows)
        assert not actual.requires_grad
    assert_near(value.loss, terms[0] * rows * weight)
    for actual, gradient in zip(gradients, expected, strict=True):
        assert_near(actual, gradient * rows * weight)


@pytest.mark.parametrize("above", [True, False])
def test_the_capacity_pulls_from_either_side(above):
    vae, x, eps = model(), pictures(), draw("capacity")
    kl = objectives.elbo(vae, x, eps).kl
    options = {"capacity": float(kl) + (-0.5 if above else 0.5), "beta": 3.0}
    value, gradients = fused("capacity", vae, x, eps, **options)
    assert_near(value.bound - value.nll, torch.tensor(1.5, dtype=torch.float64))
    for actual, expected in zip(gradients, plain("capacity", vae, x, eps, **options)[-1], strict=True):
        assert_near(actual, expected)


@pytest.mark.parametrize("name", OVER_ROWS)
def test_one_value_for_each_row(name):
    vae, x, eps = model(), pictures(), draw(name)
    rows = OBJECTIVES[name](vae, x, eps, **OPTIONS[name], reduction="none", weight=0.5)
    whole = OBJECTIVES[name](vae, x, eps, **OPTIONS[name], reduction="sum", weight=0.5)
    for each, total in zip(rows, whole, strict=True):
        assert each.shape == (ROWS,)
        assert_near(each.sum(), total, 1e-14)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_batch_in_two_halves(name):
    """The losses over rows add up, with their gradients. The others are of the batch at hand, and do not."""
    vae, x, half = model(), pictures(), ROWS // 2
    options = {**OPTIONS[name], "reduction": "sum"}
    if name == "capacity":  # between the halves' own KLs: while all are on one side of it, the distances add up
        options["capacity"] = objectives.elbo(vae, x).kl
    whole, gradients = fused(name, vae, x, Noise(1, 2), **options)
    first, first_gradients = fused(name, vae, x[:half], Noise(1, 2), **options)
    second, second_gradients = fused(name, vae, x[half:], Noise(1, 2, row_offset=half), **options)
    assert_near(first.nll + second.nll, whole.nll, 1e-14)
    assert_near(first.kl + second.kl, whole.kl, 1e-14)
    if name not in OVER_ROWS:
        assert not torch.isclose(first.loss + second.loss, whole.loss)
        return
    assert_near(first.loss + second.loss, whole.loss, 1e-14)
    for a, b, both in zip(first_gradients, second_gradients, gradients, strict=True):
        assert_near(a + b, both, 1e-13)


def test_one_sample_is_the_elbo_with_its_kl_sampled():
    vae, x = model(), pictures()
    one = objectives.importance_weighted(vae, x, Noise(1, 2), samples=1)
    mu, logvar = vae.encode(x)
    z = fastvae.ops.reparameterize(mu, logvar, Noise(1, 2))
    sampled = (log_normal(z, mu, logvar) - log_normal(z, torch.zeros(()), torch.zeros(()))).sum(1).mean()
    assert_near(one.nll, objectives.elbo(vae, x, Noise(1, 2)).nll, 1e-14)
    assert_near(one.kl, sampled.detach())
    assert_near(one.loss, one.nll + one.kl, 1e-14)


@torch.no_grad()
def linear_gaussian():
    """A model of known log p(x), 2000 of its x and ``-log p`` of each. The encoder has the true posterior's means, and
    about twice its variances.
    """
    vae = VAE(nn.Linear(PIXELS, 2 * LATENTS), nn.Linear(LATENTS, PIXELS), "gaussian").double()
    w, b, encoder = vae.decoder.weight, vae.decoder.bias, vae.encoder
    precision = torch.eye(LATENTS, dtype=torch.float64) + w.T @ w
    means = torch.linalg.solve(precision, w.T)
    encoder.weight.copy_(torch.cat((means, torch.zeros_like(means))))
    encoder.bias.copy_(torch.cat((-means @ b, 0.7 - precision.diagonal().log())))
    marginal = torch.distributions.MultivariateNormal(b, w @ w.T + torch.eye(PIXELS, dtype=torch.float64))
    x = marginal.sample((2000,))
    constant = PIXELS / 2 * math.log(2 * math.pi)  # which fastvae's Gaussian leaves out
    return vae, x, -marginal.log_prob(x) - constant


@torch.no_grad()
def test_the_bound_tightens_with_the_samples_and_stays_over_the_truth():
    vae, x, truth = linear_gaussian()
    elbo = objectives.elbo(vae, x, Noise(0), reduction="none").bound
    counts = (1, 5, 50)
    bounds = [objectives.importance_weighted(vae, x, Noise(k), samples=k, reduction="none").bound for k in counts]
    gaps = [bound - truth for bound in bounds]

    def means_above(larger, smaller):
        """Whether the mean over the rows is larger, by 4 of its standard errors: never by chance."""
        difference = larger - smaller
        return difference.mean() > 4 * difference.std() / len(x) ** 0.5

    assert means_above(elbo, bounds[1])
    assert all(means_above(*pair) for pair in pairwise(gaps))
    error = gaps[-1].std() / len(x) ** 0.5
    assert -4 * error < gaps[-1].mean() < 0.02  # nats: 0.006 in expectation, and 4 errors of 0.003


@pytest.mark.parametrize("estimator", ["iwae", "stl", "dreg"])
def test_the_bound_is_never_over_the_mean_of_the_same_samples(estimator):
    vae, x = model(), pictures(64)
    value = objectives.importance_weighted(vae, x, Noise(0), samples=7, estimator=estimator, reduction="none")
    assert (value.bound <= value.nll + value.kl).all()  # Jensen's inequality


@pytest.mark.parametrize("estimator", ["stl", "dreg"])
def test_an_estimator_leaves_the_decoders_gradient_alone(estimator):
    vae, x, eps = model(), pictures(), draw("iwae")
    encoder = len(list(vae.encoder.parameters()))
    expected, actual = (fused(name, vae, x, eps, samples=SAMPLES)[1] for name in ("iwae", estimator))
    for ours, theirs in zip(actual[encoder:], expected[encoder:], strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.allclose(actual[0], expected[0])


def test_a_beta_of_one_is_the_elbo():
    vae, x, eps = model(), pictures(), draw("elbo")
    elbo, gradients = fused("elbo", vae, x, eps)
    for name, options in (("tcvae", {"beta": 1.0, "dataset_size": IMAGES}), ("free-bits", {"free_bits": 0.0})):
        value, others = fused(name, vae, x, eps, **options)
        for a, b in zip((*value, *others), (*elbo, *gradients), strict=True):
            assert_near(a, b, 1e-13)


def test_spatial_latents_and_their_groups():
    vae = VAE(nn.Conv2d(1, 6, 2, 2), nn.ConvTranspose2d(3, 1, 2, 2), "gaussian")
    x = torch.rand(4, 1, 8, 8)
    for name, function in OBJECTIVES.items():
        groups = {"groups": 3} if name == "free-bits" else {}
        vae.zero_grad()
        function(vae, x, Noise(1), **OPTIONS[name], **groups).loss.backward()
        assert all(parameter.grad.abs().sum() > 0 for parameter in vae.parameters())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_types_are_those_of_the_operators(name):
    """fp32 even with dials in fp64, as the schedule of a step counter may give; and 16 bits inside."""
    vae, x = model().float(), pictures()
    options = {key: torch.tensor(v).double() if key in DIALS else v for key, v in OPTIONS[name].items()}
    weight = torch.tensor(0.5).double()
    exact = OBJECTIVES[name](vae, x, Noise(1), **OPTIONS[name], weight=0.5)
    for actual, expected in zip(OBJECTIVES[name](vae, x, Noise(1), **options, weight=weight), exact, strict=True):
        assert_near(actual, expected, 1e-6)  # the dials in one type or the other
    with torch.autocast("cpu", torch.bfloat16):
        value, gradients = fused(name, vae, x, Noise(1), **options, weight=weight)
    for actual, expected in zip(value, exact, strict=True):
        assert_near(actual, expected, 0.05)  # bf16 layers: 8 bits, and a KL of a few tenths
    assert all(gradient.dtype == torch.float32 for gradient in gradients)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_full_graph_follows_its_dials_and_its_noise(name):
    torch.compiler.reset()
    vae, x, noise = model(), pictures(), Noise(1)
    options = {key: torch.tensor(v) if key in DIALS else v for key, v in OPTIONS[name].items()}
    options["weight"] = torch.tensor(0.5)
    compiled = torch.compile(OBJECTIVES[name], fullgraph=True, backend="eager")
    parameters = list(vae.parameters())
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(2):
            ours, theirs = (function(vae, x, noise, **options) for function in (compiled, OBJECTIVES[name]))
            gradients = [torch.autograd.grad(value.loss, parameters) for value in (ours, theirs)]
            for a, b in zip((*ours, *gradients[0]), (*theirs, *gradients[1]), strict=True):
                assert_near(a, b, 1e-14)
            noise.advance()
            for key in options.keys() & set(DIALS):
                options[key].mul_(2)
    torch.compiler.reset()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("elbo", {"beta": math.nan}, "beta is NaN"),
        ("elbo", {"beta": torch.ones(1)}, r"beta has shape \(1,\), but must be a number or a 0-d tensor"),
        ("elbo", {"reduction": "mean"}, "reduction must be 'batchmean', 'sum' or 'none', not 'mean'"),
        ("elbo", {"weight": torch.ones(2)}, r"weight has shape \(2,\)"),
        ("iwae", {"samples": 0}, "samples must be at least 1, not 0"),
        ("iwae", {"estimator": "vimco"}, "estimator must be 'iwae', 'stl' or 'dreg', not 'vimco'"),
        ("capacity", {"capacity": math.inf}, "capacity must be a finite number of nats, not inf"),
        ("capacity", {"capacity": torch.zeros(3)}, r"capacity has shape \(3,\)"),
        ("capacity", {"beta": torch.ones((), device="meta")}, "beta is on meta, but the inputs are on cpu"),
        ("capacity", {"reduction": "none"}, "'batchmean' or 'sum' for a statistic of the whole batch, not 'none'"),
        ("free-bits", {"free_bits": -1.0}, "free_bits must be a finite number of nats, at least 0, not -1.0"),
        ("free-bits", {"groups": 3}, "3 does not divide 4"),
        ("free-bits", {"reduction": "none"}, "'batchmean' or 'sum' for a mean over the whole batch, not 'none'"),
        ("tcvae", {"dataset_size": 5}, "dataset_size is 5, but the batch has 6 rows"),
        ("tcvae", {"beta": math.nan}, "beta is NaN"),
        ("tcvae", {"reduction": "none"}, "'batchmean' or 'sum' for a statistic of the whole batch, not 'none'"),
    ],
)
def test_bad_options_raise(name, options, message):
    with pytest.raises(ValueError, match=message):
        OBJECTIVES[name](model(), pictures(), **{**OPTIONS[name], **options})


def test_what_cannot_be_split_over_rows_is_refused():
    with pytest.raises(ValueError, match="not 'none'"):
        objectives.importance_weighted(model("optimal_gaussian"), pictures())


def test_one_row_has_no_total_correlation():
    vae, x = model(), pictures(1)
    value = objectives.total_correlation(vae, x, Noise(1), beta=2.0, dataset_size=IMAGES)
    for a, b in zip(value, objectives.elbo(vae, x, Noise(1)), strict=True):
        assert_near(a, b, 1e-14)


def test_free_bits_of_a_grid_are_a_channels_with_all_its_places():
    vae = VAE(nn.Conv2d(1, 6, 2, 2), nn.ConvTranspose2d(3, 1, 2, 2), "gaussian")
    x = torch.rand(4, 1, 8, 8)
    value = objectives.free_bits(vae, x, Noise(1), free_bits=1e4)
    torch.testing.assert_close(value.bound - value.nll, torch.tensor(3e4))
    given = objectives.free_bits(vae, x, Noise(1), free_bits=0.3, groups=3)
    assert torch.equal(objectives.free_bits(vae, x, Noise(1), free_bits=0.3).bound, given.bound)
