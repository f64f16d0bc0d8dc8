"""The two levels of a ladder draw independent noise, wherever it samples."""

import pytest
import torch

from fastvae import Noise
from fastvae.models.ladder import LOWER_STREAM, ladder_vae

LATENTS = 2


@pytest.fixture
def ladder():
    torch.manual_seed(0)
    return ladder_vae((3, 32, 32), 8, LATENTS, "bernoulli").eval()


def seen(module):
    """Record the input and the output of every later call of a module."""
    calls = []
    module.register_forward_hook(lambda _, inputs, output: calls.append((inputs[0].detach(), output.detach())))
    return calls


@pytest.mark.parametrize("stream", [0, 2])
def test_samples_of_the_lower_level_are_drawn_by_its_own_stream(ladder, stream):
    tops, priors, decoded = seen(ladder.prior), seen(ladder.prior_head), seen(ladder.decoder)
    noise = Noise(3, 4, stream=stream)
    ladder.sample(5, noise)
    upper, (mean, logvar) = tops[0][0], priors[0][1].chunk(2, 1)
    torch.testing.assert_close(upper, noise.draw(tuple(upper.shape)))
    lower = (decoded[0][0][:, :LATENTS] - mean) / (logvar / 2).exp()
    own = Noise(3, 4, stream=stream + LOWER_STREAM).draw(tuple(lower.shape))
    torch.testing.assert_close(lower, own, rtol=1e-4, atol=1e-4)


def test_forward_draws_what_the_loss_draws(ladder):
    images, noise = torch.rand(4, 3, 32, 32), Noise(3, 4)
    decoded = seen(ladder.decoder)
    ladder.loss(images, noise)
    ladder(images, noise)
    ladder(images, Noise(3, 5))
    torch.testing.assert_close(decoded[0][0], decoded[1][0])
    assert not torch.allclose(decoded[1][0], decoded[2][0])


def test_without_a_key_each_draw_is_another_and_torchs_seed_rules_it(ladder):
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn += [ladder.sample(2), ladder.sample(2)]
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[4])
