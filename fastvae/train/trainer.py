"""The trainer for people with a model of their own."""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from fastvae.data import Dataset, Source
from fastvae.data.datasets.dataset import dataset_of_tensors
from fastvae.models import VAE
from fastvae.utils.errors import InputError

from .config import TrainConfig, resolve
from .loop import Callback
from .run import Outcome, run


class Trainer:
    """Trains a VAE of any encoder and decoder as ``fastvae train`` trains a preset: fused, timed, saved, resumable.

    Args:
        model: the VAE; its weights are trained in place.
        data: a :class:`fastvae.data.Dataset`; a pair of tensors for training and testing, (N, C, H, W) each, uint8
            (read as x/255) or fp32; one such tensor, of which every tenth image is for testing; or a name or file, as
            ``--data`` takes it.
        config: the settings, one field for each flag. What it leaves open is its preset's: optimiser, schedule, batch
            size, epochs, binarisation, but not the network.
        callbacks: called with a :class:`fastvae.train.EpochEnd` at the end of each epoch; one that returns something
            true ends the run.
        quiet: print nothing.

    Raises:
        InputError: settings or data that do not fit; one line with the values and the remedy. It is a ValueError.

    Several processes: start the script with torchrun, and each trains its share of the global batch.

    ``config.seed`` decides what the model draws from torch's generators as it trains (dropout), too; checkpoints have
    their states, and the caller's are left as they were. Each process draws its own: with dropout, a run goes on to the
    bit with as many processes as before, and another number of them is another run. So it is with a BatchNorm, which
    normalises by one process' rows; the main one's running statistics are saved.

    >>> import tempfile, torch, fastvae
    >>> from torch import nn
    >>> encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 8))
    >>> decoder = nn.Sequential(nn.Linear(4, 64), nn.Unflatten(1, (1, 8, 8)))
    >>> model = fastvae.VAE(encoder, decoder, latent_shape=4)
    >>> images = torch.randint(0, 256, (200, 1, 8, 8), dtype=torch.uint8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     config = fastvae.TrainConfig(epochs=2, batch_size=20, autotune=False, out=f"{folder}/run")
    ...     outcome = fastvae.Trainer(model, images, config, quiet=True).fit()
    >>> outcome.status
    0
    """

    def __init__(
        self,
        model: VAE,
        data: Dataset | Tensor | Source | tuple[Tensor | Source, Tensor | Source] | str,
        config: TrainConfig | None = None,
        *,
        callbacks: Sequence[Callback] = (),
        quiet: bool = False,
    ) -> None:
        self.model = model
        self.config = resolve(config or TrainConfig())
        if self.config.nproc not in (None, 1):
            raise InputError(f"nproc is {self.config.nproc}, but a script is started by torchrun: leave nproc out")
        self.callbacks, self.quiet = callbacks, quiet
        self._dataset: Dataset | None = None
        if isinstance(data, str):
            self.config = replace(self.config, data=data)
        else:
            self._dataset = data if isinstance(data, Dataset) else dataset_of_tensors(data)
            self.config = replace(self.config, data=self._dataset.name)

    def fit(self) -> Outcome:
        """Train to the end of the epochs, or to what ends the run before. Returns how it ended, and the test loss."""
        return run(self.config, model=self.model, dataset=self._dataset, callbacks=self.callbacks, quiet=self.quiet)
