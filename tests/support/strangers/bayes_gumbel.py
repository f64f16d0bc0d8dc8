"""A model as strangers write them; see bayes_gumbel at the end."""

import torch
import torch.nn.functional as F
from torch import nn


class BayesLinear(nn.Module):
    """Weights are drawn anew in each forward (Bayes by backprop)."""

    def __init__(self, in_features: int, out_features: int, prior_sigma: float = 0.5):
        super().__init__()
        self.weight_mu = nn.Parameter(torch.empty(out_features, in_features).uniform_(-0.2, 0.2))
        self.weight_rho = nn.Parameter(torch.full((out_features, in_features), -4.0))
        self.bias_mu = nn.Parameter(torch.zeros(out_features))
        self.prior_sigma = prior_sigma
        self.kl = None

    def forward(self, x):
        posterior = torch.distributions.Normal(self.weight_mu, F.softplus(self.weight_rho))
        if self.training:
            weight = posterior.rsample()
            prior = torch.distributions.Normal(torch.zeros_like(weight), self.prior_sigma)
            self.kl = torch.distributions.kl_divergence(posterior, prior).sum()
        else:
            weight = posterior.mean
        return F.linear(x, weight, self.bias_mu)


class GumbelEncoder(nn.Module):
    def __init__(self, latent=6, hidden=32, codes=5, code_dim=8):
        super().__init__()
        self.body = nn.Sequential(
            nn.Flatten(), nn.Linear(64, hidden), nn.SELU(), nn.AlphaDropout(0.1), BayesLinear(hidden, hidden), nn.SELU()
        )
        self.to_logits = nn.Linear(hidden, codes)
        self.codebook = nn.Embedding(codes, code_dim)
        self.mu = nn.Linear(hidden + code_dim, latent)
        self.log_sigma = nn.Parameter(torch.full((latent,), -1.0))  # the same for all pictures
        self.register_buffer("tau", torch.tensor(2.0))
        self.register_buffer("step", torch.tensor(0, dtype=torch.long))

    def forward(self, x):
        h = self.body(x)
        if self.training:
            self.step += 1
            if self.step % 5 == 0:
                self.tau.mul_(0.9).clamp_(min=0.5)
            soft = F.gumbel_softmax(self.to_logits(h), tau=self.tau, hard=bool(self.step > 10), dim=-1)
            code = soft @ self.codebook.weight
        else:
            code = self.codebook(self.to_logits(h).argmax(-1))
        mu = self.mu(torch.cat([h, code], dim=-1))
        return torch.cat([mu, 2 * self.log_sigma.expand_as(mu)], dim=-1)


class MCDropoutDecoder(nn.Module):
    def __init__(self, latent=6, hidden=32):
        super().__init__()
        self.fc1 = BayesLinear(latent, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.fc3 = nn.Linear(hidden + latent, 64)
        self.bn = nn.BatchNorm1d(hidden, momentum=None)  # cumulative average
        self.history = []

    def forward(self, z):
        h = F.selu(self.fc1(z))
        h = F.dropout(h, p=0.1, training=True)  # MC dropout: also at test time
        h = self.bn(F.selu(self.fc2(h)) + h)
        self.history.append(h.detach().abs().mean())
        self.history = self.history[-20:]
        if len(self.history) == 20 and self.history[-1] > 1.5 * torch.stack(self.history).mean():
            h = h * 0.5
        return self.fc3(torch.cat([h, z], dim=1)).view(-1, 1, 8, 8)


def bayes_gumbel() -> tuple[nn.Module, nn.Module, tuple | int, tuple]:
    """Weights drawn per forward, gumbel annealed by buffers, MC dropout, expanded logvar; Bayes by backprop."""
    return GumbelEncoder(), MCDropoutDecoder(), 6, (1, 8, 8)
