"""The loop of pytorch/examples' VAE, patched and not."""

import warnings
from types import ModuleType

import pytest
import torch
from torch.nn import functional as F

from fastvae import patch

from .conftest import both, error

SOURCE = """
import torch
from torch import nn
from torch.nn import functional as F

class VAE(nn.Module):
    def __init__(self):
        super(VAE, self).__init__()
        self.fc1 = nn.Linear(784, 40)
        self.fc21 = nn.Linear(40, 5)
        self.fc22 = nn.Linear(40, 5)
        self.fc3 = nn.Linear(5, 40)
        self.fc4 = nn.Linear(40, 784)

    def encode(self, x):
        h1 = F.relu(self.fc1(x))
        return self.fc21(h1), self.fc22(h1)

    def reparameterize(self, mu, logvar):
        std = torch.exp(0.5*logvar)
        eps = torch.randn_like(std)
        return mu + eps*std

    def decode(self, z):
        h3 = F.relu(self.fc3(z))
        return torch.sigmoid(self.fc4(h3))

    def forward(self, x):
        mu, logvar = self.encode(x.view(-1, 784))
        z = self.reparameterize(mu, logvar)
        return self.decode(z), mu, logvar

def loss_function(recon_x, x, mu, logvar):
    BCE = F.binary_cross_entropy(recon_x, x.view(-1, 784), reduction='sum')
    KLD = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
    return BCE + KLD
"""


@pytest.fixture
def script():
    script = ModuleType("script")
    exec(SOURCE, vars(script))
    return script


def train(script, dtype, steps):
    """The losses of the loop, and the weights that it ends with."""
    torch.manual_seed(0)
    model = script.VAE().to(dtype)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    data = (torch.rand(64, 1, 28, 28) > torch.linspace(0.1, 0.9, 28)).to(dtype)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        recon_batch, mu, logvar = model(data)
        loss = script.loss_function(recon_batch, data, mu, logvar)
        loss.backward()
        losses.append(loss.detach())
        optimizer.step()
    return [torch.stack(losses), *(weight.detach() for weight in model.parameters())]


@pytest.mark.parametrize(("dtype", "steps", "within"), [(torch.float32, 200, 1e-5), (torch.float64, 20, 1e-9)])
def test_the_loop_follows_its_own_curve(script, dtype, steps, within):
    (patched, plain), *weights = both(lambda: train(script, dtype, steps), lambda: patch.examples(script))
    assert plain[-1] < 0.95 * plain[0]
    assert ((patched - plain).abs() / plain).max() < within
    if dtype == torch.float64:
        assert all(error(*pair) < within for pair in weights)


def test_cross_entropy_and_kl_are_fused(script, monkeypatch):
    with patch.examples(script), warnings.catch_warnings():
        warnings.simplefilter("error")
        train(script, torch.float32, 1)  # the first call looks at the script's own loss too
        monkeypatch.setattr(F, "binary_cross_entropy", lambda *_, **__: pytest.fail("not fused"))
        train(script, torch.float32, 1)


def test_probabilities_from_elsewhere_stay_with_torch_and_say_so(script):
    recon = torch.rand(4, 784, dtype=torch.float64, requires_grad=True)
    mu, logvar = torch.randn(2, 4, 5, dtype=torch.float64).requires_grad_()
    x = torch.rand(4, 1, 28, 28, dtype=torch.float64)

    def run():
        loss = script.loss_function(recon, x, mu, logvar=logvar)
        return [loss, *torch.autograd.grad(loss, (recon, mu, logvar))]

    with pytest.warns(UserWarning, match="its logits are unknown"):
        pairs = both(run, lambda: patch.examples(script))
    assert all(error(patched, plain) < 1e-9 for patched, plain in pairs)


def test_another_formula_is_refused_at_the_first_call(script):
    script.loss_function = lambda recon_x, x, mu, logvar: F.mse_loss(recon_x, x.view(-1, 784), reduction="sum")
    with patch.examples(script), pytest.raises(ValueError, match=r"loss_function gave .*, but binary cross-entropy"):
        train(script, torch.float32, 1)


def test_a_module_without_such_a_function_is_refused(script):
    with pytest.raises(ValueError, match=r"torch\.nn\.loss_function must be a function, not None: pass its module"):
        patch.examples(torch.nn)
    script.loss_function = lambda recon_x, x: 0
    with pytest.raises(ValueError, match=r"script\.loss_function\(recon_x, x\) must take four arguments"):
        patch.examples(script)


def test_undone_the_originals_are_back(script):
    loss, forward = script.loss_function, vars(script.VAE)["forward"]
    undo = patch.examples(script)
    assert script.loss_function is not loss
    undo()
    assert script.loss_function is loss
    assert vars(script.VAE)["forward"] is forward
