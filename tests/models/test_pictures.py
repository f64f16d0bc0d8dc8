"""Networks for pictures: sizes, rows that do not depend on others, and the ladder's ELBO by its formula."""

import contextlib
import inspect
import math
from functools import partial

import pytest
import torch
from torch.distributions import Normal, kl_divergence

import fastvae
from fastvae.data.config import DataConfig
from fastvae.models import OBJECTIVES, PRESETS, build
from fastvae.models.blocks import levels
from fastvae.models.conv import conv_vae
from fastvae.models.ladder import LadderVAE, ladder_vae
from fastvae.train.step.execution import Step
from fastvae.train.step.loss import StepLoss, StepScalars
from fastvae.utils.errors import InputError

NETWORKS = {
    "conv": lambda shape, likelihood: conv_vae(shape, 8, 2, likelihood),
    "flat": lambda shape, likelihood: conv_vae(shape, 8, 2, likelihood, flat=True),
    "resnet": lambda shape, likelihood: conv_vae(shape, 8, 2, likelihood, blocks=1),
    "ladder": lambda shape, likelihood: ladder_vae(shape, 8, 2, likelihood),
}


def pictures(rows, shape):
    torch.manual_seed(1)
    return torch.randint(0, 256, (rows, *shape), dtype=torch.uint8).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 40, 64)])
@pytest.mark.parametrize("likelihood", ["bernoulli", "mixture"])
def test_losses_samples_and_reconstructions(name, shape, likelihood):
    torch.manual_seed(0)
    vae = NETWORKS[name](shape, likelihood)
    x = pictures(3, shape)
    elbo = vae.loss(x, fastvae.Noise(1))
    elbo.loss.backward()
    assert elbo.loss.isfinite()
    assert all(parameter.grad is not None for parameter in vae.parameters())
    for shown in (vae.sample(2, fastvae.Noise(1)), vae.reconstruct(x)):
        assert shown.shape[1:] == shape
        assert 0 <= shown.min() <= shown.max() <= 1


@pytest.mark.parametrize("name", NETWORKS)
def test_sides_of_256_will_do(name):
    make = ladder_vae if name == "ladder" else partial(conv_vae, blocks=int(name == "resnet"), flat=name == "flat")
    with torch.no_grad():
        output = make((3, 256, 256), 2, 2, "bernoulli")(pictures(1, (3, 256, 256)), fastvae.Noise(0)).output
    assert output.shape == (1, 3, 256, 256)
    assert output.isfinite().all()


def test_sides_are_4_to_7_times_a_power_of_two():
    def is_taken(side):
        with contextlib.suppress(ValueError):
            return levels(side) > 0
        return False

    sides = [side for side in range(8, 257) if is_taken(side)]
    assert sides == sorted(part << power for part in range(4, 8) for power in range(1, 7) if part << power <= 256)
    help_text = " ".join(inspect.getsource(DataConfig).split())
    assert ", ".join(str(side) for side in sides if 28 <= side < 128) in help_text


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_lie_in_channels_last(name):
    seen = []
    vae = NETWORKS[name]((3, 32, 32), "mixture")
    for module in (vae.encoder, vae.decoder):
        module.register_forward_hook(lambda module, inputs, output: seen.append(output))
    vae.loss(pictures(4, (3, 32, 32)))
    assert len(seen) == 2
    for output in seen if name != "flat" else seen[1:]:
        assert output.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_row_does_not_depend_on_its_batch(name):
    torch.manual_seed(0)
    vae = NETWORKS[name]((1, 28, 28), "bernoulli").double()
    x = pictures(5, (1, 28, 28))
    whole = vae.loss(x, fastvae.Noise(1), reduction="none")
    for start, end in ((0, 2), (2, 5)):
        part = vae.loss(x[start:end], fastvae.Noise(1, row_offset=start), reduction="none")
        torch.testing.assert_close(part.loss, whole.loss[start:end], rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_traced_steps_are_eager_ones(name):
    torch.manual_seed(0)
    vae = NETWORKS[name]((3, 32, 32), "mixture").double()
    x, noise = pictures(4, (3, 32, 32)), fastvae.Noise(3)
    one = torch.ones((), dtype=torch.float64)
    results = []
    for execution in ("eager", "traced"):
        step = Step(StepLoss(vae, "auto"), execution, lambda: torch.autocast("cpu", enabled=False))
        results.append(step(x, noise.state, 0, StepScalars(one, one, one)))
    (sums, gradients), (traced_sums, traced) = results
    torch.testing.assert_close(traced_sums, sums, rtol=1e-12, atol=1e-12)
    for left, right in zip(traced, gradients, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("execution", ["eager", "traced"])
def test_bf16_products_stay_near(name, execution):
    torch.manual_seed(0)
    vae = NETWORKS[name]((3, 16, 16), "mixture")
    x, noise, one = pictures(4, (3, 16, 16)), fastvae.Noise(3), torch.ones(())
    sums, gradients = [], []
    for low in (False, True):
        step = Step(StepLoss(vae, "auto"), execution, lambda low=low: torch.autocast("cpu", torch.bfloat16, low))
        of_terms, found = step(x, noise.state, 0, StepScalars(one, one, one))
        sums.append(of_terms)
        gradients.append(torch.cat([gradient.flatten() for gradient in found]))
    torch.testing.assert_close(sums[1], sums[0], rtol=0.01, atol=0.5)
    assert torch.cosine_similarity(*gradients, dim=0) > 0.99


@pytest.mark.slow
def test_a_compiled_step_is_the_eager_one():
    torch.manual_seed(0)
    vae = NETWORKS["ladder"]((1, 16, 16), "mixture")
    x, noise, one = pictures(2, (1, 16, 16)), fastvae.Noise(3), torch.ones(())
    results = []
    for execution in ("eager", "compiled"):
        step = Step(StepLoss(vae, "auto"), execution, lambda: torch.autocast("cpu", enabled=False))
        results.append(step(x, noise.state, 0, StepScalars(one, one, one)))
    (sums, gradients), (compiled_sums, compiled) = results
    torch.testing.assert_close(compiled_sums, sums, rtol=1e-4, atol=1e-4)
    for left, right in zip(compiled, gradients, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-3 * right.abs().max().item())


def test_the_ladder_is_its_formula():
    torch.manual_seed(0)
    vae = ladder_vae((1, 16, 16), 8, 3, "bernoulli").double()
    x, noise = pictures(4, (1, 16, 16)), fastvae.Noise(7)
    elbo = vae.loss(x, noise, reduction="sum")

    features = vae.encoder(x.double() / 255)
    mu2, logvar2 = vae.top(features).chunk(2, 1)
    posterior2 = Normal(mu2, torch.exp(logvar2 / 2))
    z2 = mu2 + posterior2.scale * noise.draw(mu2.shape, torch.float64)
    down = vae.prior(z2)
    prior_mu, prior_logvar = vae.prior_head(down).chunk(2, 1)
    mu, logvar = vae.estimate(features).chunk(2, 1)
    precision, prior_precision = torch.exp(-logvar), torch.exp(-prior_logvar)
    variance = 1 / (precision + prior_precision)
    posterior1 = Normal(variance * (mu * precision + prior_mu * prior_precision), variance.sqrt())
    lower = fastvae.Noise(7, stream=16)
    z1 = posterior1.loc + posterior1.scale * lower.draw(mu.shape, torch.float64)
    kl = kl_divergence(posterior2, Normal(0.0, 1.0)).sum()
    kl = kl + kl_divergence(posterior1, Normal(prior_mu, torch.exp(prior_logvar / 2))).sum()
    logits = vae.decoder(torch.cat((z1, down), 1))
    nll = torch.nn.functional.binary_cross_entropy_with_logits(logits, x.double() / 255, reduction="sum")
    assert elbo.kl.item() == pytest.approx(kl.item(), rel=1e-10)
    assert elbo.nll.item() == pytest.approx(nll.item(), rel=1e-10)
    assert elbo.loss.item() == pytest.approx((kl + nll).item(), rel=1e-10)


def test_a_ladder_draws_for_two_levels():
    vae = ladder_vae((1, 16, 16), 8, 3, "bernoulli")
    with pytest.raises(ValueError, match="noise for two levels"):
        vae.loss(pictures(2, (1, 16, 16)), torch.zeros(2, 3, 4, 4))
    torch.manual_seed(0)
    first = vae.loss(pictures(2, (1, 16, 16))).loss
    torch.manual_seed(0)
    assert vae.loss(pictures(2, (1, 16, 16))).loss == first


OPTIONS = {"capacity": {"capacity": 1.0, "beta": 1.0}, "free-bits": {"free_bits": 1.0}}
OPTIONS["tcvae"] = {"beta": 1.0, "dataset_size": 9}


@pytest.mark.parametrize("name", sorted(OBJECTIVES.keys() - {"elbo"}))
def test_other_objectives_than_the_elbo_refuse_a_ladder(name):
    vae, x = ladder_vae((1, 16, 16), 8, 3, "bernoulli"), pictures(2, (1, 16, 16))
    with pytest.raises(InputError, match=r"^LadderVAE has 2 levels of latents, but this objective knows 1: use elbo$"):
        OBJECTIVES[name](vae, x, **OPTIONS.get(name, {}))
    assert OBJECTIVES["elbo"](vae, x, fastvae.Noise(1)).loss == vae.loss(x, fastvae.Noise(1)).loss


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 30, 30), "of 30, 15 is odd on the way: use --image-size 28 or 32"),
        ((3, 100, 100), "25 is odd on the way: use --image-size 96 or 112"),
        ((3, 250, 250), "use --image-size 224 or 256"),
        ((1, 3, 3), "at least 4 pixels"),
        ((2, 32, 32), "1 or 3 channels"),
    ],
)
def test_what_cannot_be_halved_or_mixed_is_refused(shape, words):
    with pytest.raises(ValueError, match=words):
        conv_vae(shape, 8, 2, "mixture")
    with pytest.raises(ValueError, match="16 pixels or more"):
        ladder_vae((1, 8, 8), 8, 2, "bernoulli")


@pytest.mark.parametrize("name", ["conv28", "conv64", "resnet64", "ladder"])
def test_presets_begin_near_what_knows_nothing(name):
    preset = PRESETS[name]
    channels = 1 if name == "conv28" else 3
    vae = build(preset, (channels, preset.image_size, preset.image_size), width=8)
    assert isinstance(vae, LadderVAE) == (name == "ladder")
    elbo = vae.loss(pictures(4, (channels, preset.image_size, preset.image_size)), fastvae.Noise(0))
    bits = elbo.nll.item() / (channels * preset.image_size**2) / math.log(2)
    assert 0.5 < bits < (1.5 if name == "conv28" else 12)
