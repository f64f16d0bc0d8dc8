"""A model as strangers write them; see blog_conv at the end."""

import torch
from torch import nn


class BlogEncoder(nn.Module):
    def __init__(self, in_channels, latent_dim, hidden_dims):
        super().__init__()
        self.latent_dim = latent_dim
        modules = []
        # Build Encoder
        for h_dim in hidden_dims:
            modules.append(
                nn.Sequential(
                    nn.Conv2d(in_channels, out_channels=h_dim, kernel_size=3, stride=2, padding=1),
                    nn.BatchNorm2d(h_dim),
                    nn.LeakyReLU(inplace=True),
                )
            )
            in_channels = h_dim
        self.encoder = nn.Sequential(*modules)
        self.fc_mu = nn.Linear(hidden_dims[-1] * 4, latent_dim)
        self.fc_var = nn.Linear(hidden_dims[-1] * 4, latent_dim)
        self.num_iter = 0

    def forward(self, input):
        if self.training:
            # denoising: noise goes away during the first 50 iterations
            sigma = 0.1 * max(0.0, 1.0 - self.num_iter / 50)
            self.num_iter += 1
            if sigma > 0:
                input = input + sigma * torch.randn_like(input)
            # cutout of random pictures
            keep = torch.rand(input.shape[0], 1, 1, 1, device=input.device) > 0.25
            y, x = torch.randint(0, 12, (2,)).tolist()
            mask = torch.ones_like(input)
            mask[:, :, y : y + 4, x : x + 4] = 0
            input = torch.where(keep, input, input * mask)
        result = self.encoder(input)
        result = torch.flatten(result, start_dim=1)
        # Split the result into mu and var components of the latent Gaussian distribution
        mu = self.fc_mu(result)
        log_var = self.fc_var(result)
        return torch.cat([mu, log_var], dim=1)


class BlogDecoder(nn.Module):
    def __init__(self, out_channels, latent_dim, hidden_dims):
        super().__init__()
        hidden_dims.reverse()
        self.first = hidden_dims[0]
        self.decoder_input = nn.Linear(latent_dim, hidden_dims[0] * 4)
        modules = []
        for i in range(len(hidden_dims) - 1):
            modules.append(
                nn.Sequential(
                    nn.ConvTranspose2d(
                        hidden_dims[i], hidden_dims[i + 1], kernel_size=3, stride=2, padding=1, output_padding=1
                    ),
                    nn.BatchNorm2d(hidden_dims[i + 1]),
                    nn.LeakyReLU(inplace=True),
                    nn.Dropout2d(0.1),
                )
            )
        self.decoder = nn.Sequential(*modules)
        self.final_layer = nn.Sequential(
            nn.ConvTranspose2d(hidden_dims[-1], hidden_dims[-1], 3, stride=2, padding=1, output_padding=1),
            nn.BatchNorm2d(hidden_dims[-1]),
            nn.LeakyReLU(),
            nn.Conv2d(hidden_dims[-1], out_channels=out_channels, kernel_size=3, padding=1),
        )

    def forward(self, z):
        result = self.decoder_input(z)
        result = result.view(-1, self.first, 2, 2)
        result = self.decoder(result)
        return self.final_layer(result)


def blog_conv() -> tuple[nn.Module, nn.Module, tuple | int, tuple]:
    """BatchNorm, Dropout2d, in-place LeakyReLU, noise annealed by a python counter, cutout; PyTorch-VAE, blog posts."""
    hidden_dims = [16, 32, 64]
    return BlogEncoder(3, 16, hidden_dims), BlogDecoder(3, 16, hidden_dims), 16, (3, 16, 16)
