"""The beginning of a run, new or resumed where an earlier start ended; faults are found here as early as can be."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastvae.data import Dataset, Loader
from fastvae.train.checkpoint import checkpoint
from fastvae.train.checkpoint.checkpoint import Checkpoint
from fastvae.train.checkpoint.schema import Mark, check
from fastvae.train.config import ResolvedConfig, TrainConfig, resolve
from fastvae.train.config.resolve import with_folder
from fastvae.train.config.resume import Changes, changes_of, in_words, same_images, taken_over
from fastvae.train.distributed.world import World
from fastvae.train.report.run_config import agent, read_config
from fastvae.train.report.run_folder import RunFolder, default_path
from fastvae.train.run_state import RunState, restore
from fastvae.utils.errors import InputError
from fastvae.utils.settings import as_typed, changed
from fastvae.utils.terminal import Terminal

_STARTED: set[Path] = set()  # folders of the runs that this process started


@dataclass(frozen=True)
class Beginning:
    """The beginning of a run.

    config: all settings, those of a run that resumes included.
    path: the run's folder. folder: rank 0 has claimed it; None on other ranks.
    stored: the config.json of a run that resumes from a checkpoint; None for a new run.
    found: its checkpoint. changes: the settings that change there.
    opening: what rank 0 tells of where the run begins, or an empty string.
    """

    config: ResolvedConfig
    path: Path
    folder: RunFolder | None
    stored: Mapping[str, Any] | None
    found: Checkpoint | None
    changes: Changes
    opening: str

    def check_images(self, dataset: Dataset, fingerprint: str | None, *, own: bool, console: Terminal) -> None:
        """Check on rank 0 that a run resumes with the images that it was started with.

        Args:
            dataset: the images. fingerprint: that of their content.
            own: they are the caller's own: the same images may come in another order, or be drawn at random, so another
                content is told, and no more.
            console: where that is told.

        Raises:
            InputError: their number, shape or content is another.
        """
        if self.stored is None:
            return
        path = self.path
        data = self.stored["data"]
        own_images = "leave --data out" if "data" in self.config.given and not own else "restore its own images"
        remedy = f"{own_images}, or start a new run with another --out"
        with_weights = f"{remedy} and --init-from {path}"
        before = {"train": data.get("train"), "test": data.get("test"), "shape": tuple(data["shape"])}
        now = {"train": len(dataset.train), "test": len(dataset.test), "shape": dataset.shape}
        if any(before[name] not in (None, now[name]) for name in now):
            counts = (
                f"{each['train']} images for training and {each['test']} for testing, of {each['shape']}"
                for each in (before, now)
            )
            raise InputError(
                f"{path} was started with {next(counts)}, but {dataset.name} has {next(counts)}: "
                + (with_weights if before["shape"] == now["shape"] else remedy)
            )
        known = data.get("fingerprint")
        if known is None and not own and not same_images(self.stored["settings"], self.config):
            raise InputError(
                f"{path} was trained with --data {self.stored['settings']['data']}, not {self.config.data}, and an "
                "older fastvae kept nothing to compare their content by: leave --data out, or move the images back"
            )
        if known in (None, fingerprint):
            return
        if not own:
            raise InputError(
                f"{dataset.name} has as many images as {path} was started with, but other ones: {with_weights}"
            )
        console.print(
            f"fastvae: {dataset.name} does not hold the images that {path} was started with, or has them in another "
            "order: from here on it is no longer exact",
            style="yellow",
        )

    def state(self, loader: Loader) -> RunState | None:
        """Return the state of the run that resumes, checked; None for a new run."""
        if self.stored is None or self.found is None:
            return None
        before = self.stored["settings"].get("batch_size")
        return restore(self.found, loader.count, loader.batch_size, before)

    def history(self) -> list[Any]:
        """Return the changes of settings so far, those of this start at the end, as config.json keeps them."""
        if self.stored is None or self.found is None:
            return []
        before = list(self.stored.get("changes", []))
        step = self.found.values["step"]
        return [*before, {"step": step, "settings": self.changes}] if self.changes else before

    def tell(self, console: Terminal) -> None:
        """Print where the run begins, which settings change, and what that makes inexact: nothing can refuse it now."""
        if self.opening:
            console.print(self.opening)
        if self.changes and self.found is not None:
            step = self.found.values["step"]
            console.print(as_typed(f"changed at step {step}: {in_words(self.changes, self.config)}", TrainConfig))


def begin(config: TrainConfig, world: World, console: Terminal, *, own_model: bool) -> Beginning:
    """Claim the run's folder on rank 0, and find out whether and how the run resumes. Collective.

    Other ranks need not see the folder that rank 0 reads. Raises InputError; then nothing is left behind.
    """
    found: Checkpoint | None = None
    folder: RunFolder | None = None
    opening = ""
    told: Any = None
    with world.raise_together():
        if world.is_rank_0:
            stored = _resumed(with_folder(config))
            _check_own_model(config, stored, own_model=own_model)
            settings = _merged(config, stored)
            folder = _claim(settings, resume=stored is not None, own_model=own_model)
            try:
                if stored is not None:
                    if checkpoint.are_in(folder.checkpoints):
                        changes_of(folder.path, stored["settings"], settings)
                    found, opening = _newest(folder.path, console)
            except BaseException:
                folder.abandon()
                raise
            told = (str(folder.path), stored)
    path, stored = world.broadcast_object(told)
    settings = changed(_merged(config, stored), ResolvedConfig, out=Path(path), resume=stored is not None)
    found = checkpoint.broadcast(found, world)
    changes: Changes = {}
    if found is None:
        stored = None
    else:
        limit = None if "max_steps" in config.given else settings.max_steps
        if limit is not None and found.values["step"] >= limit:  # it ended the run, which is to go on
            settings = changed(settings, ResolvedConfig, max_steps=None)
        changes = changes_of(Path(path), stored["settings"], settings)
    _STARTED.add(Path(path).resolve())
    return Beginning(settings, Path(path), folder, stored, found, changes, opening)


def _merged(config: TrainConfig, stored: Mapping[str, Any] | None) -> ResolvedConfig:
    """Return the settings of this start, with those of the run that it resumes."""
    return resolve(config if stored is None else taken_over(with_folder(config), stored["settings"]))


def _resumed(config: TrainConfig) -> dict[str, Any] | None:
    """Return the config.json of the run that resumes; None for a new run."""
    if config.out is None or not (config.resume or _is_restart(Path(config.out))):
        return None
    return read_config(Path(config.out))


def _check_own_model(config: TrainConfig, stored: Mapping[str, Any] | None, *, own_model: bool) -> None:
    """Raise InputError for a run of a user's own model that resumes without it, or of a preset that does with one."""
    if stored is None or bool(stored.get("own_model")) == own_model:
        return
    has = "a model of its own" if stored.get("own_model") else f"preset {stored['settings'].get('preset')}"
    remedy = (
        "build it in Python and give it to fastvae.Trainer" if not own_model else "use fastvae train, or another out"
    )
    raise InputError(f"{config.out} was trained with {has}: to resume it, {remedy}")


def _is_restart(path: Path) -> bool:
    """Return whether the elastic agent (torchrun's or our own) that started the run in a folder restarted this process.

    A run that another command started, or this very process, is not to be resumed without --resume.
    """
    if path.resolve() in _STARTED:
        return False
    try:
        return agent() is not None and read_config(path).get("agent") == agent()
    except InputError:
        return False


def _claim(config: ResolvedConfig, *, resume: bool, own_model: bool) -> RunFolder:
    if config.out is None:
        return RunFolder.beside_others(default_path(config, own_model=own_model))
    return RunFolder(config.out, resume=resume)


def _newest(path: Path, console: Terminal) -> tuple[Checkpoint | None, str]:
    """Return a run's newest checkpoint, or None, and a line about where the run begins."""
    if not checkpoint.are_in(path / "checkpoints"):
        return None, f"{path} has no checkpoint yet: the run starts from the beginning"
    file, found, skipped = checkpoint.newest(path / "checkpoints")
    for why in skipped:
        console.print(f"passed over for an earlier checkpoint: {why}", style="yellow")
    return found, f"going on from {file}, step {check(found.values, Mark, f'{file}: its values')['step']}"
