"""The trainer for your own model."""

import os
import threading
from collections.abc import Sequence
from typing import Any

from fastvae.data import Dataset
from fastvae.data.datasets.own import own_dataset, path_name
from fastvae.data.open import read_size
from fastvae.models import VAE
from fastvae.utils.errors import InputError
from fastvae.utils.settings import changed, in_words_of_caller

from .config import TrainConfig, resolve
from .config.resolve import with_folder
from .report.epoch_end import Callback
from .run import Outcome, run

# Held by the run of this process that trains: torch's generators and flags, and the recording of a step, belong to the
# whole process, so that runs in two threads would draw from one another's generators. A callback may start a run.
_ALONE = threading.RLock()


class Trainer:
    """Train a VAE with any encoder and decoder as ``fastvae train`` trains a preset: fused, timed, saved, resumable.

    Args:
        model: the VAE; its weights are trained in place.
        data: a name or a path, as ``--data`` takes it; a :class:`fastvae.data.Dataset`; or images, of which every
            tenth is for testing, or a pair of them for training and testing. Images are an array of numpy or a tensor,
            (N, C, H, W), (N, H, W), (N, D) or an array (N, H, W, C), of uint8 (read as x/255), bool or floats; a list
            of images or of pictures' paths; a map-style data set of torch's; or a DataLoader, whose data set is read in
            an order of the run's own. Labels, in a tuple with the images or with each item, are left out.
            :func:`fastvae.data.datasets.own.own_dataset` has the details.
        config: the settings, one field for each flag. Its preset decides what it leaves open (optimiser, schedule,
            batch size, epochs, binarization), but not the network.
        callbacks: called with a :class:`fastvae.train.EpochEnd` at the end of each epoch; a true result ends the run.
        quiet: print nothing.

    Raises:
        InputError: settings or data do not fit; one line with the values and the remedy. It is a ValueError.

    Runs in threads of one process train one after another, each as if it were alone. Signals stop only a run in the
    main thread. In a notebook, or a process of somebody else's pool, nothing is different.

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
        data: Any,
        config: TrainConfig | None = None,
        *,
        callbacks: Sequence[Callback] = (),
        quiet: bool = False,
    ) -> None:
        self.model = model
        config = config or TrainConfig()
        # The settings that a resumed run leaves open are known when its folder is read.
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
        if isinstance(data, (str, os.PathLike)):
            self.config = changed(self.config, type(self.config), given=["data"], data=path_name(data))
        else:
            self._dataset = own_dataset(
                data,
                size=read_size(self.config),
                channels=self.config.channels,
                on_bad=self.config.on_bad_image,
            )
            self.config = changed(self.config, type(self.config), given=["data"], data=self._dataset.name)

    def fit(self) -> Outcome:
        """Train until the last epoch, or until something ends the run. Returns how it ended, and the test loss."""
        with _ALONE:
            return run(self.config, model=self.model, dataset=self._dataset, callbacks=self.callbacks, quiet=self.quiet)
