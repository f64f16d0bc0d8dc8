"""The loop of a tutorial, as its author types it: the baseline of bench_training."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import to_pil_image, to_tensor


class Pictures(Dataset):
    """What torchvision's MNIST with ToTensor does for each picture: a PIL image, then a tensor."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return to_tensor(to_pil_image(self.images[index])), 0


class Model(nn.Module):
    """784-400-400-(200, 200), 200-400-400-784 with LeakyReLU 0.2: the preset `leaky`."""

    def __init__(self):
        super().__init__()
        self.input1, self.input2 = nn.Linear(784, 400), nn.Linear(400, 400)
        self.mean, self.var = nn.Linear(400, 200), nn.Linear(400, 200)
        self.hidden1, self.hidden2, self.output = nn.Linear(200, 400), nn.Linear(400, 400), nn.Linear(400, 784)

    def forward(self, x):
        h = F.leaky_relu(self.input2(F.leaky_relu(self.input1(x), 0.2)), 0.2)
        mean, log_var = self.mean(h), self.var(h)
        z = mean + torch.exp(0.5 * log_var) * torch.randn_like(log_var)
        h = F.leaky_relu(self.hidden2(F.leaky_relu(self.hidden1(z), 0.2)), 0.2)
        return torch.sigmoid(self.output(h)), mean, log_var


class Tutorial:
    """One epoch at a time: DataLoader, BCE on probabilities, plain Adam, .item() after every step."""

    def __init__(self, images, device, workers):
        torch.manual_seed(0)
        self.device = device
        self.loader = DataLoader(Pictures(images), batch_size=100, shuffle=True, num_workers=workers)
        self.model = Model().to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)

    def epoch(self):
        total = 0.0
        for batch, _ in self.loader:
            x = batch.view(-1, 784).to(self.device)
            self.optimizer.zero_grad()
            x_hat, mean, log_var = self.model(x)
            bce = F.binary_cross_entropy(x_hat, x, reduction="sum")
            kl = -0.5 * torch.sum(1 + log_var - mean.pow(2) - log_var.exp())
            loss = bce + kl
            total += loss.item()
            loss.backward()
            self.optimizer.step()
        return total / len(self.loader.dataset)
