"""The VAE around any encoder and decoder."""

import pytest
import torch
from torch import nn

import fastvae
from fastvae import reference
from fastvae.nn import Gaussian


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.mu, self.logvar = nn.Linear(6, 2), nn.Linear(6, 2)

    def forward(self, x):
        return self.mu(x), self.logvar(x)


@pytest.fixture
def vae():
    return fastvae.VAE(TwoHeads(), nn.Linear(2, 6), latent_shape=2).double()


def test_loss_is_weighted_and_its_terms_are_not(vae):
    x, eps = torch.rand(5, 6, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    elbo = vae.loss(x, eps, beta=3.0, weight=0.25)
    mu, logvar = vae.encode(x)
    kl = reference.gaussian_kl(mu, logvar)
    nll = reference.bernoulli_nll(vae.decoder(reference.reparameterize(mu, logvar, eps)), x)
    torch.testing.assert_close(elbo.nll, nll.detach())
    torch.testing.assert_close(elbo.kl, kl.detach())
    torch.testing.assert_close(elbo.loss, 0.25 * (nll + 3.0 * kl))


def test_a_weight_on_the_device_is_the_same(vae):
    x, eps = torch.rand(5, 6, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    one = vae.loss(x, eps, beta=torch.tensor(3.0), weight=torch.tensor(0.25))
    torch.testing.assert_close(one.loss, vae.loss(x, eps, beta=3.0, weight=0.25).loss)


def test_uint8_pixels_are_read_over_255(vae):
    x = torch.randint(0, 256, (5, 6), dtype=torch.uint8)
    eps = torch.randn(5, 2, dtype=torch.float64)
    torch.testing.assert_close(vae.loss(x, eps).loss, vae.loss(x.double() / 255, eps).loss, rtol=1e-12, atol=0)


def test_packed_and_separate_heads_are_one_model(vae):
    packed = nn.Linear(6, 4).double()
    with torch.no_grad():
        packed.weight.copy_(torch.cat((vae.encoder.mu.weight, vae.encoder.logvar.weight)))
        packed.bias.copy_(torch.cat((vae.encoder.mu.bias, vae.encoder.logvar.bias)))
    other = fastvae.VAE(packed, vae.decoder)
    x, eps = torch.rand(5, 6, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    torch.testing.assert_close(other.loss(x, eps).loss, vae.loss(x, eps).loss)


def test_forward_agrees_with_encode_and_decode(vae):
    x, eps = torch.rand(5, 6, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    out = vae(x, eps)
    torch.testing.assert_close(out.z, out.mu + torch.exp(out.logvar / 2) * eps)
    torch.testing.assert_close(vae.decode(out.z), torch.sigmoid(out.output))
    torch.testing.assert_close(vae.reconstruct(x), vae.decode(out.mu).detach())


def test_spatial_latents():
    vae = fastvae.VAE(nn.Conv2d(1, 6, 2, 2), nn.ConvTranspose2d(3, 1, 2, 2), "gaussian", latent_shape=(3, 4, 4))
    elbo = vae.loss(torch.rand(2, 1, 8, 8))
    elbo.loss.backward()
    assert vae.encoder.weight.grad.abs().sum() > 0
    assert vae.sample(5).shape == (5, 1, 8, 8)


def test_samples_follow_their_noise(vae):
    first, again = (vae.sample(3, fastvae.Noise(seed=1)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, vae.sample(3, fastvae.Noise(seed=2)))


def test_normalised_pixels_are_refused_with_a_remedy(vae):
    with pytest.raises(ValueError, match=r"spans \[-1, 1\].*leave out the normalisation"):
        vae.loss(torch.tensor([[-1.0, 0, 0, 0, 0, 1.0]], dtype=torch.float64))


def test_bad_parts_are_named():
    with pytest.raises(ValueError, match="not 'poisson'"):
        fastvae.VAE(TwoHeads(), nn.Linear(2, 6), "poisson")
    with pytest.raises(ValueError, match=r"even dimension 1, but has \(4, 3\)"):
        fastvae.VAE(nn.Linear(6, 3), nn.Linear(2, 6)).loss(torch.rand(4, 6))
    with pytest.raises(ValueError, match="latent_shape"):
        fastvae.VAE(TwoHeads(), nn.Linear(2, 6)).sample(1)


def test_a_likelihood_object_is_taken_as_it_is():
    likelihood = Gaussian(variance=0.1)
    assert fastvae.VAE(TwoHeads(), nn.Linear(2, 6), likelihood).likelihood is likelihood


def test_a_mask_is_encoded_as_zeros_and_ones():
    vae = fastvae.VAE(nn.Linear(6, 4), nn.Linear(2, 6))
    mask = torch.rand(5, 6) > 0.5
    assert torch.equal(vae.encode(mask)[0], vae.encode(mask.float())[0])
