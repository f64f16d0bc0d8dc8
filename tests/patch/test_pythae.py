"""pythae's models and trainer, patched and not."""

import copy
import warnings

import pytest
import torch

from .conftest import both, error

pytest.importorskip("pythae", reason="make adapters")

from pythae.data.datasets import BaseDataset, DatasetOutput
from pythae.models import IWAE, VAE, BetaVAE, BetaVAEConfig, IWAEConfig, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig

from fastvae import patch

MODELS = {
    "vae": (VAE, VAEConfig, {}),
    "beta_vae": (BetaVAE, BetaVAEConfig, {"beta": 3.0}),
    "iwae": (IWAE, IWAEConfig, {"number_samples": 4}),
}
CASES = [(name, loss) for name in MODELS for loss in ("bce", "mse")]


def model_of(name, loss, dtype=torch.float32, decoder=None, size=10):
    kind, config, more = MODELS[name]
    torch.manual_seed(0)
    return kind(
        config(input_dim=(1, size, size), latent_dim=5, reconstruction_loss=loss, **more), decoder=decoder
    ).to(dtype)  # fmt: skip


def step(model, x):
    """All that a step gives: the output's fields, and the gradients."""
    output = model(DatasetOutput(data=x))
    return [*output.values(), *torch.autograd.grad(output.loss, list(model.parameters()))]


@pytest.mark.parametrize(("name", "loss"), CASES)
def test_losses_and_gradients_in_fp64(name, loss):
    model, x = model_of(name, loss, torch.float64), torch.rand(6, 1, 10, 10, dtype=torch.float64)
    for patched, plain in both(lambda: step(model, x), patch.pythae):
        assert patched.shape == plain.shape
        assert patched.dtype == plain.dtype
        assert error(patched, plain) < 1e-9


@pytest.mark.parametrize(("name", "loss"), CASES)
def test_in_fp32_the_error_is_pythaes_own(name, loss):
    model, x = model_of(name, loss), torch.rand(6, 1, 10, 10)
    exact = copy.deepcopy(model).double()
    eps = torch.randn(6, 4, 5) if name == "iwae" else torch.randn(6, 5)
    for each in (model, exact):
        each._sample_gauss = lambda mu, std: (mu + eps.to(mu.dtype) * std, eps)
    truth = step(exact, x.double())
    for (patched, plain), value in zip(both(lambda: step(model, x), patch.pythae), truth, strict=True):
        assert error(patched, value) <= error(plain, value) + 1e-5


@pytest.mark.parametrize(("name", "loss"), CASES)
def test_the_fused_operations_are_reached(name, loss, monkeypatch):
    model, x = model_of(name, loss), torch.rand(3, 1, 10, 10)
    for dear in ("binary_cross_entropy", "mse_loss"):
        monkeypatch.setattr(torch.nn.functional, dear, lambda *_, **__: pytest.fail("not fused"))
    with patch.pythae():
        step(model, x)


def test_the_output_keeps_its_fields():
    model, x = model_of("vae", "bce"), torch.rand(3, 1, 10, 10)
    with patch.pythae():
        output = model(DatasetOutput(data=x))
    assert list(output.keys()) == ["recon_loss", "reg_loss", "loss", "recon_x", "z"]
    assert output.recon_x.requires_grad
    torch.testing.assert_close(output.loss, output.recon_loss + output.reg_loss)


def test_a_saturated_sigmoid_keeps_its_gradient():
    model, x = model_of("vae", "bce"), torch.zeros(3, 1, 10, 10)
    last = model.decoder.layers[-1][0]
    with torch.no_grad():
        last.bias.fill_(30.0)
    (patched, plain), *_ = both(
        lambda: [torch.autograd.grad(model(DatasetOutput(data=x)).recon_loss, last.bias)[0]], patch.pythae
    )
    assert plain.eq(0).all()  # 100 for each pixel, and nothing to learn from it
    torch.testing.assert_close(patched, torch.ones(100))


class Ends(BaseDecoder):
    """A decoder that does something to the sigmoid's result."""

    def __init__(self, end):
        super().__init__()
        self.linear, self.end = torch.nn.Linear(5, 100), end

    def forward(self, z):
        return ModelOutput(reconstruction=self.end(torch.sigmoid(self.linear(z))))


UNKNOWN = {
    "clamped": lambda p: p.clamp(0.1, 0.9).view(-1, 1, 10, 10),
    "scaled in place": lambda p: p.detach().mul_(0.5).view(-1, 1, 10, 10),
    "transposed": lambda p: p.view(-1, 1, 10, 10).transpose(2, 3),
    "a gate": lambda p: (p * torch.tanh(p)).view(-1, 1, 10, 10),
}


@pytest.mark.parametrize("end", UNKNOWN)
def test_a_decoder_that_ends_otherwise_stays_on_probabilities_and_says_so(end):
    model = model_of("vae", "bce", torch.float64, Ends(UNKNOWN[end]))
    x = torch.rand(6, 1, 10, 10, dtype=torch.float64)

    def run():
        output = model(DatasetOutput(data=x))
        return [output.loss, *torch.autograd.grad(output.loss, list(model.encoder.parameters()), allow_unused=True)]

    with pytest.warns(UserWarning, match="its logits are unknown"):
        pairs = both(run, patch.pythae)
    assert all(error(patched, plain) < 1e-9 for patched, plain in pairs)


def test_any_spelling_of_the_sigmoid_is_known():
    for sigmoid in (torch.sigmoid, torch.special.expit, torch.nn.functional.sigmoid, torch.nn.Sigmoid()):
        decoder = Ends(lambda p: p)
        decoder.forward = lambda z, decoder=decoder, sigmoid=sigmoid: ModelOutput(
            reconstruction=sigmoid(decoder.linear(z)).reshape(-1, 1, 10, 10)
        )
        with patch.pythae(), warnings.catch_warnings():
            warnings.simplefilter("error")
            step(model_of("vae", "bce", decoder=decoder), torch.rand(3, 1, 10, 10))


@pytest.mark.parametrize("loss", ["bce", "mse"])
def test_without_gradients_the_values_are_the_same(loss):
    model, x = model_of("vae", loss), torch.rand(6, 1, 10, 10)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            pairs = both(lambda: list(model(DatasetOutput(data=x)).values()), patch.pythae)
        assert all(error(patched, plain) < 1e-6 for patched, plain in pairs)


@pytest.mark.parametrize("name", ["vae", "iwae"])
def test_a_target_that_the_operations_read_otherwise_is_pythaes(name):
    model = model_of(name, "mse")
    encode = model.encoder.forward
    model.encoder.forward = lambda x: encode(x.float())
    for x in (torch.randint(0, 9, (6, 1, 10, 10)).byte(), torch.rand(6, 1, 10, 10, dtype=torch.float64)):
        pairs = both(lambda x=x: [model(DatasetOutput(data=x)).loss], patch.pythae)
        assert all(torch.equal(patched, plain) for patched, plain in pairs)


def test_a_gradient_for_the_target_is_pythaes():
    model, x = model_of("vae", "mse", torch.float64), torch.rand(6, 1, 10, 10, dtype=torch.float64, requires_grad=True)
    pairs = both(lambda: torch.autograd.grad(model(DatasetOutput(data=x)).loss, x), patch.pythae)
    assert all(torch.equal(patched, plain) for patched, plain in pairs)


def test_a_subclass_keeps_its_own_loss():
    class Mine(VAE):
        def loss_function(self, recon_x, x, mu, log_var, z):
            return mu.sum(), mu.sum(), mu.sum()

    model = Mine(VAEConfig(input_dim=(1, 10, 10), latent_dim=5, reconstruction_loss="bce"))
    ((patched, plain),) = both(lambda: [model(DatasetOutput(data=torch.rand(3, 1, 10, 10))).loss], patch.pythae)
    assert torch.equal(patched, plain)


def test_undone_every_original_is_back():
    methods = [vars(model)[name] for model in (VAE, BetaVAE, IWAE) for name in ("forward", "loss_function")]
    undo = patch.pythae()
    with patch.pythae():
        assert VAE.forward is not methods[0]
    assert VAE.forward is not methods[0]
    undo()
    assert methods == [vars(model)[name] for model in (VAE, BetaVAE, IWAE) for name in ("forward", "loss_function")]


class _Recorder:
    """A model's loss at each training step."""

    def __init__(self, model):
        self.losses = []
        model.register_forward_hook(lambda model, _, output: model.training and self.losses.append(output.loss.item()))


@pytest.mark.parametrize("loss", ["bce", "mse"])
def test_pythaes_trainer_follows_its_own_curve_for_200_steps(loss, tmp_path):
    images = (torch.rand(320, 1, 10, 10) > torch.linspace(0.1, 0.9, 10)).float()
    data = BaseDataset(images, torch.zeros(320))

    def train():
        model = model_of("vae", loss)
        recorder = _Recorder(model)
        settings = BaseTrainerConfig(
            output_dir=str(tmp_path), num_epochs=20, per_device_train_batch_size=32, learning_rate=1e-3, no_cuda=True
        )
        trainer = BaseTrainer(model, data, training_config=settings)
        recorder.losses.clear()  # the trainer's sanity check
        trainer.train()
        return [torch.tensor(recorder.losses)]

    ((patched, plain),) = both(train, patch.pythae)
    assert len(plain) == 200
    assert plain[-1] < 0.95 * plain[0]
    assert ((patched - plain).abs() / plain).max() < 1e-5
