"""The contender tutorial, the baseline: a training loop as tutorials write it."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fastvae.data import in_memory

from .workload import Contender, Workload, training_loss


class TutorialImages(Dataset[Any]):
    """A data set that treats images as torchvision's MNIST with ToTensor does: to a PIL image, then to a tensor."""

    def __init__(self, images: Tensor) -> None:
        from torchvision.transforms import functional  # noqa: PLC0415 -- slow to import

        self.images = images
        self._functional = functional

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._functional.to_tensor(self._functional.to_pil_image(self.images[index])), 0


class TutorialLoop(Contender):
    """A loop with a DataLoader, a loss on probabilities, an unfused optimiser, and ``.item()`` in every step."""

    def __init__(self, workload: Workload, seed: int, workers: int) -> None:
        recipe = workload.recipe
        self.workload = workload
        self.model = workload.model(seed)
        self.encoder, self.decoder = workload.layers(self.model)
        self.loader = DataLoader(
            TutorialImages(in_memory(workload.dataset.train)),
            batch_size=workload.batch_size,
            shuffle=True,
            num_workers=workers,
        )
        kind = {"adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop}[recipe.optimizer]
        self.optimizer = kind(self.model.parameters(), lr=recipe.lr, **recipe.optimizer_options)

    def epoch(self, _: int) -> Iterator[None]:
        total = 0.0
        for images, _ in self.loader:
            x = self.workload.layer_input(images).to(self.workload.device)
            if self.workload.recipe.binarize:
                x = torch.bernoulli(x)
            self.optimizer.zero_grad()
            encoded = self.encoder(x)
            mean, log_var = encoded.chunk(2, dim=1) if isinstance(encoded, Tensor) else encoded
            output = self.decoder(mean + torch.exp(0.5 * log_var) * torch.randn_like(log_var))
            if self.workload.recipe.likelihood == "bernoulli":
                nll = F.binary_cross_entropy(torch.sigmoid(output), x, reduction="sum")
            else:
                nll = 0.5 * F.mse_loss(output, x, reduction="sum")
            kl = -0.5 * torch.sum(1 + log_var - mean.pow(2) - log_var.exp())
            loss = training_loss(self.workload, nll, kl, len(x))
            total += loss.item()
            loss.backward()
            self.optimizer.step()
            yield
