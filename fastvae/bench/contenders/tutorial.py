"""The loop of a tutorial, as its author types it: the baseline."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fastvae.bench.contenders.workload import Contender, Task, minimised
from fastvae.data import in_memory


class Pictures(Dataset[Any]):
    """What torchvision's MNIST with ToTensor does for each picture: a PIL image, then a tensor."""

    def __init__(self, images: Tensor) -> None:
        from torchvision.transforms import functional  # noqa: PLC0415 -- slow to import

        self.images, self._functional = images, functional

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._functional.to_tensor(self._functional.to_pil_image(self.images[index])), 0


class Tutorial(Contender):
    """DataLoader, losses on probabilities, a plain optimiser, .item() at every step."""

    def __init__(self, task: Task, seed: int, workers: int) -> None:
        recipe = task.recipe
        self.task = task
        self.model = task.model(seed)
        self.encoder, self.decoder = task.layers(self.model)
        self.loader = DataLoader(
            Pictures(in_memory(task.dataset.train)), batch_size=task.batch_size, shuffle=True, num_workers=workers
        )
        kind = {"adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop}[recipe.optimizer]
        self.optimizer = kind(self.model.parameters(), lr=recipe.lr, **recipe.optimizer_options)

    def epoch(self, _: int) -> Iterator[None]:
        total = 0.0
        for images, _ in self.loader:
            x = self.task.laid_out(images).to(self.task.device)
            if self.task.recipe.binarize:
                x = torch.bernoulli(x)
            self.optimizer.zero_grad()
            encoded = self.encoder(x)
            mean, log_var = encoded.chunk(2, dim=1) if isinstance(encoded, Tensor) else encoded
            output = self.decoder(mean + torch.exp(0.5 * log_var) * torch.randn_like(log_var))
            if self.task.recipe.likelihood == "bernoulli":
                nll = F.binary_cross_entropy(torch.sigmoid(output), x, reduction="sum")
            else:
                nll = 0.5 * F.mse_loss(output, x, reduction="sum")
            kl = -0.5 * torch.sum(1 + log_var - mean.pow(2) - log_var.exp())
            loss = minimised(self.task, nll, kl, len(x))
            total += loss.item()
            loss.backward()
            self.optimizer.step()
            yield
