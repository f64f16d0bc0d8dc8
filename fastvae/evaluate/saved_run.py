"""A finished (or stopped) run, opened again to look at."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from fastvae.data import Batch, DataConfig, Dataset, Loader, TensorSource, open_dataset
from fastvae.data.datasets.fingerprint import fingerprint
from fastvae.data.datasets.load import NAMES, NoSizeError, check_there
from fastvae.data.deliver import make_test_loader
from fastvae.data.loaders.choose import LoaderName
from fastvae.models import PRESETS, VAE, build
from fastvae.ops import Noise, gaussian_kl
from fastvae.train.binarize import with_test_drawn
from fastvae.train.checkpoint import checkpoint
from fastvae.train.checkpoint.best import FILE
from fastvae.train.checkpoint.checkpoint import Checkpoint
from fastvae.train.checkpoint.load_weights import fitting
from fastvae.train.checkpoint.schema import Mark, check, is_a
from fastvae.train.report.metrics import Metrics
from fastvae.train.report.run_config import CONFIG, read_config
from fastvae.train.step import evaluate as step_evaluate
from fastvae.train.step.loss import StepLoss
from fastvae.utils.errors import InputError
from fastvae.utils.files import reason
from fastvae.utils.settings import marked
from fastvae.utils.terminal import Terminal

_ACTIVE = 0.01  # the variance over the data of a unit's posterior mean, above which it is called active

Which = Literal["last", "best"]
_LOG = logging.getLogger("fastvae")


@dataclass(frozen=True)
class SavedRun:
    """The model of a run as its last checkpoint or its best has it, and what it was trained with.

    Where the run kept an average of the weights, that is the model.
    """

    path: Path
    model: VAE
    settings: dict[str, Any]
    shape: tuple[int, ...]
    epoch: int
    steps: int = 0  # of the epoch after that
    recorded: Mapping[str, Any] = field(default_factory=dict)  # the numbers of the run's images, their fingerprint
    has_own_data: bool = True  # no other images were named

    @classmethod
    def open(cls, path: Path, device: torch.device, which: Which = "last", data: str | None = None) -> "SavedRun":
        """Open a run; ``data`` names its images where they have moved, or other ones.

        Raises InputError if the folder holds no run, or no such checkpoint that is whole.
        """
        config = read_config(path)
        settings = config["settings"] if data is None else {**config["settings"], "data": data}
        shape = tuple(config["data"]["shape"])
        file = path / CONFIG
        if len(shape) != 3 or min(shape) < 1 or any(isinstance(size, bool) for size in shape):
            raise InputError(f"{file} has images of shape {shape}, not (C, H, W): use another run")
        if config.get("own_model"):
            raise InputError(
                f"{path} was trained with a model of its own, which its folder does not hold: build it in Python, and "
                "train on with fastvae.Trainer and resume=True"
            )
        found = _best(path) if which == "best" else _last(path)
        mark = check(found.values, Mark, f"{path}: the values of its checkpoint")
        try:
            with torch.device("meta"):  # which takes no memory, whatever sizes somebody wrote there
                outline = _build(settings, shape)
            weights = fitting(outline, found, average=True)
            model = _build(settings, shape)
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"{file} does not describe a preset's model ({reason(error)}): use another run") from error
        model.load_state_dict(weights)
        if not 0 <= mark["epoch"] < 2**32:
            raise InputError(f"{path}: its checkpoint is of epoch {mark['epoch']}, but they are 0 to 2**32 - 1")
        place = found.values.get("loader")
        steps = check(place, Mark, "its place")["step"] if is_a(place, Mark) else 0
        ready = model.float().to(device).eval()
        return cls(path, ready, settings, shape, mark["epoch"], steps, config["data"], data is None)

    def named_files(self, data_dir: Path | None) -> str | None:
        """Return the file or folder of images that the run's settings name and the caller does not, if there is one."""
        data = self.settings["data"]
        folder = None if data_dir is not None else self.settings.get("data_dir")
        if data in NAMES or not self.has_own_data:
            return folder
        return data if folder is None else f"{data} of {folder}"

    def _data_dir(self, data_dir: Path | None) -> Path | None:
        kept = self.settings.get("data_dir")
        return data_dir or (Path(kept) if kept else None)

    def _data_config(self, data_dir: Path | None) -> DataConfig:
        names = [*marked(DataConfig, "decides_images"), "flip"]  # a run that flips crops its test images, too
        settings = {name: self.settings[name] for name in names if name in self.settings}  # older versions had fewer
        return DataConfig(**settings, data_dir=self._data_dir(data_dir), workers=0)

    def data(self, data_dir: Path | None) -> Dataset:
        """Open the data set that the run was trained on again. Where its content is another, a warning says so."""
        if data_dir is None:
            check_there(self.settings["data"], self.path)
        remedy = ("name" if self.has_own_data else "leave --data out, or name") + " images of that shape with --data"
        try:
            dataset = open_dataset(self._data_config(data_dir))
        except NoSizeError as error:
            raise InputError(
                f"{self.settings['data']} has pictures of any size, but {self.path} was trained on images of "
                f"{self.shape}, which were not resized: {remedy}"
            ) from error
        if dataset.shape != self.shape:
            raise InputError(
                f"{dataset.name} has images of shape {dataset.shape}, but {self.path} was trained on {self.shape}: "
                + remedy
            )
        known = self.recorded.get("fingerprint")
        is_resized = self.settings.get("image_size") is not None
        if known is not None and known != fingerprint(dataset, self.settings["data"], resized=is_resized):
            _LOG.warning(
                "%s has other images than %s was started with: what follows is of these", dataset.name, self.path
            )
        return dataset

    def test_loader(self, data_dir: Path | None) -> Loader:
        """Make the loader of the images that the run was evaluated on: the same images, drawn and cropped the same."""
        dataset = self.data(data_dir)
        if self.settings.get("binarize"):
            dataset = with_test_drawn(dataset, self.settings["seed"])
        name: LoaderName = "resident" if isinstance(dataset.test, TensorSource) else "torch"
        device = next(self.model.parameters()).device
        return make_test_loader(self._data_config(data_dir), dataset, name, device=device)

    def announced_test_loader(self, data_dir: Path | None, *, quiet: bool = False) -> Loader:
        """Make :meth:`test_loader`, once the files that config.json points to are named, unless ``quiet``."""
        named = self.named_files(data_dir)
        if named is not None and not quiet:
            Terminal(stderr=True).print(f"{self.path}: its config.json names the images, in {named}")
        return self.test_loader(data_dir)


def _build(settings: dict[str, Any], shape: tuple[int, ...]) -> VAE:
    return build(PRESETS[settings["preset"]], shape, settings["latent_dim"], settings.get("width"))


def _last(path: Path) -> Checkpoint:
    _, found, skipped = checkpoint.newest(path / "checkpoints")
    for why in skipped:
        _LOG.warning("passed over for an earlier checkpoint: %s", why)
    return found


def _best(path: Path) -> Checkpoint:
    file = path / "checkpoints" / FILE
    if not file.exists():
        raise InputError(f"{path} has no best checkpoint, as no epoch was finished and saved: use --checkpoint last")
    return checkpoint.load(file)


@dataclass(frozen=True)
class Evaluation:
    """The test ELBO in nats per sample, and how much each latent dimension carries.

    kl_per_dimension: (latent_dim,) nats, averaged over the images; of latents on a grid, summed over its places. For a
        ladder, the upper level's.
    active: (latent_dim,) bool: whether Var_x[mu] > 0.01 (Burda, Grosse & Salakhutdinov 2015, section 5.2), at any
        place.
    """

    terms: Metrics
    kl_per_dimension: Tensor
    active: Tensor


def _spread(means: list[Tensor]) -> Tensor:
    return torch.cat(means).var(0, correction=0)


@torch.no_grad()
def evaluate(run: SavedRun, loader: Loader) -> Evaluation:
    """Evaluate on a loader's images, with the noise of the run's last epoch, which gives the loss that it logged."""
    kl: list[Tensor] = []
    means: list[Tensor] = []

    def visit(batch: Batch) -> None:
        mu, logvar = run.model.encode(batch.images)
        kl.append(gaussian_kl(mu.flatten().double(), logvar.flatten().double(), reduction="none").view(mu.shape))
        means.append(mu.double())

    noise = Noise(run.settings["seed"], run.epoch, device=loader.device)
    sums, images = step_evaluate.evaluate(StepLoss(run.model, "auto").eval(), loader, noise, visit=visit)
    spread, average = (values.view(len(values), -1) for values in (_spread(means), torch.cat(kl).mean(0)))
    return Evaluation(Metrics.from_sums(sums, images), average.sum(1).cpu(), (spread > _ACTIVE).any(1).cpu())
