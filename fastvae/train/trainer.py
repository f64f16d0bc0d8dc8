"""The trainer for your own model."""

from collections.abc import Sequence

from torch import Tensor

from fastvae.data import Dataset, Source
from fastvae.data.datasets.dataset import dataset_of_tensors
from fastvae.models import VAE
from fastvae.utils.errors import InputError
from fastvae.utils.settings import changed, in_words_of_caller

from .config import TrainConfig, resolve
from .config.resolve import with_folder
from .report.epoch_end import Callback
from .run import Outcome, run


class Trainer:
    """Train a VAE with any encoder and decoder as ``fastvae train`` trains a preset: fused, timed, saved, resumable.

    Args:
        model: the VAE; its weights are trained in place.
        data: a :class:`fastvae.data.Dataset`; a pair of tensors for training and testing, (N, C, H, W) each, uint8
            (read as x/255) or fp32; one such tensor, of which every tenth image is for testing; or a name or file, as
            ``--data`` takes it.
        config: the settings, one field for each flag. Its preset decides what it leaves open (optimiser, schedule,
            batch size, epochs, binarization), but not the network.
        callbacks: called with a :class:`fastvae.train.EpochEnd` at the end of each epoch; a true result ends the run.
        quiet: print nothing.

    Raises:
        InputError: settings or data do not fit; one line with the values and the remedy. It is a ValueError.

    To train on several processes, start the script with torchrun: each process trains on its share of the global batch.

    ``config.seed`` also seeds what the model draws from torch's generators as it trains. Checkpoints save the states of
    the generators, and the caller's own states are restored afterwards.

    Dropout and BatchNorm depend on how the batch is split: each process draws its own dropout masks and normalizes over
    its own rows, and rank 0's running statistics are saved. With such a model the loss curve changes with the number of
    processes. Resuming is still exact to the bit if that number is the same.

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
        config = config or TrainConfig()
        # What a run that resumes leaves open is known when its folder is read.
        with in_words_of_caller(TrainConfig):
            self.config: TrainConfig = with_folder(config) if config.resume else resolve(config)
        if self.config.nproc not in (None, 1):
            raise InputError(f"nproc is {self.config.nproc}, but a script is started by torchrun: leave nproc out")
        if self.config.max_restarts:
            raise InputError(
                f"max_restarts is {self.config.max_restarts}, but torchrun restarts a script: give it to torchrun"
            )
        self.callbacks = callbacks
        self.quiet = quiet
        self._dataset: Dataset | None = None
        if isinstance(data, str):
            self.config = changed(self.config, type(self.config), given=["data"], data=data)
        else:
            self._dataset = data if isinstance(data, Dataset) else dataset_of_tensors(data)
            self.config = changed(self.config, type(self.config), given=["data"], data=self._dataset.name)

    def fit(self) -> Outcome:
        """Train until the last epoch, or until something ends the run. Returns how it ended, and the test loss."""
        return run(self.config, model=self.model, dataset=self._dataset, callbacks=self.callbacks, quiet=self.quiet)
