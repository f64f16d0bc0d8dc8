"""diffusers' AutoencoderKL, patched and not."""

import pytest
import torch

from .conftest import both, error

pytest.importorskip("diffusers", reason="make adapters")

from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution as Posterior

from fastvae import patch


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(8,), layers_per_block=1, latent_channels=4, norm_num_groups=4, sample_size=16
    ).double()  # fmt: skip


def parameters_of(*shape, dtype=torch.float64):
    """Parameters of a posterior whose logvar leaves [-30, 20] on both sides."""
    torch.manual_seed(1)
    parameters = torch.randn(2, 8, *shape, dtype=torch.float64)
    parameters[:, 4:] *= 20
    return parameters.to(dtype).requires_grad_()


def test_a_step_of_autoencoder_kl(model):
    x = torch.rand(2, 3, 16, 16, dtype=torch.float64)

    def run():
        posterior = model.encode(x).latent_dist
        z = posterior.sample()
        loss = (model.decode(z).sample - x).square().sum() + 0.1 * posterior.kl().sum()
        return [z, loss, posterior.mode(), *torch.autograd.grad(loss, list(model.parameters()))]

    pairs = both(run, patch.diffusers)
    largest = max(plain.abs().max().item() for _, plain in pairs)  # a bias before a normalisation has gradient zero
    assert all(
        (patched - plain).abs().max() < 1e-9 * max(plain.abs().max(), 1e-6 * largest) for patched, plain in pairs
    )


QUESTIONS = {
    "sample": lambda p: p.sample(),
    "kl": lambda p: p.kl(),
    "kl to another": lambda p: p.kl(Posterior(p.parameters.detach().roll(1, 0) * 0.1)),
    "nll": lambda p: p.nll(torch.ones_like(p.mean)),
    "nll over all": lambda p: p.nll(torch.ones_like(p.mean), dims=[0, 1, 2, 3]),
    "mode": lambda p: p.mode(),
    "std": lambda p: p.std,
    "var": lambda p: p.var,
    "logvar": lambda p: p.logvar,
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_values_and_gradients_through_the_clamp(question):
    parameters = parameters_of(5, 3)

    def run():
        value = QUESTIONS[question](Posterior(parameters))
        weights = torch.linspace(1, 2, value.numel(), dtype=value.dtype).view(value.shape)
        return [value, torch.autograd.grad((value * weights).sum(), parameters)[0]]

    for patched, plain in both(run, patch.diffusers):
        assert patched.dtype == plain.dtype
        assert patched.shape == plain.shape
        assert error(patched, plain) < 1e-9
        assert torch.equal(patched == 0, plain == 0)  # no gradient outside the clamp


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("question", ["sample", "kl"])
def test_the_error_is_diffusers_own(question, dtype):
    parameters = (parameters_of(5, 3).detach() * 0.1).to(dtype)
    exact = Posterior(parameters.double())
    torch.manual_seed(7)
    truth = exact.mean + exact.std * torch.randn(2, 4, 5, 3, dtype=dtype) if question == "sample" else exact.kl()

    def run():
        torch.manual_seed(7)
        return [QUESTIONS[question](Posterior(parameters))]

    ((patched, plain),) = both(run, patch.diffusers)
    assert patched.dtype == dtype
    assert error(patched, truth) <= error(plain, truth) + (1e-5 if dtype == torch.float32 else 1e-2)


def test_a_generator_or_a_list_of_them_is_honoured():
    parameters = parameters_of(5, 3)

    def run():
        one = torch.Generator().manual_seed(3)
        several = [torch.Generator().manual_seed(seed) for seed in (4, 5)]
        return [Posterior(parameters).sample(generator=one), Posterior(parameters).sample(several), torch.randn(3)]

    assert all(error(patched, plain) < 1e-12 for patched, plain in both(run, patch.diffusers))


def test_a_deterministic_posterior_is_left_alone():
    def run():
        posterior = Posterior(parameters_of(5, 3), deterministic=True)
        return [posterior.sample(), posterior.kl(), posterior.nll(posterior.mean), posterior.std]

    assert all(torch.equal(patched, plain) for patched, plain in both(run, patch.diffusers))


def test_video_latents_keep_diffusers_own_dimensions():
    pairs = both(lambda: [Posterior(parameters_of(2, 5, 3)).kl(), Posterior(parameters_of(2, 5, 3)).sample()],
                 patch.diffusers)  # fmt: skip
    assert all(patched.shape == plain.shape and error(patched, plain) < 1e-9 for patched, plain in pairs)


def test_objects_outlive_the_patch_and_the_class_comes_back():
    construct = vars(Posterior)["__init__"]
    parameters = parameters_of(5, 3)
    before = Posterior(parameters)
    with patch.diffusers(), patch.diffusers():
        made = Posterior(parameters)
        assert isinstance(made, Posterior)
        assert type(before) is Posterior
        assert error(before.kl(), made.kl()) < 1e-12
    assert vars(Posterior)["__init__"] is construct
    assert type(Posterior(parameters)) is Posterior
    assert error(made.kl(), before.kl()) < 1e-12
    assert error(made.std, before.std) < 1e-12
    assert made.kl(before).abs().max() < 1e-9


def test_a_subclass_keeps_its_own_code():
    class Mine(Posterior):
        def sample(self, generator=None):
            return self.std

    with patch.diffusers():
        assert type(Mine(parameters_of(5, 3))) is Mine
