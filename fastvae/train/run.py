"""A training run from its settings to its pictures, in each of its processes."""

import signal
import statistics

from rich.console import Console

from ..data import load
from ..ops import Noise
from . import checkpoint
from .checkpoint import Checkpoint
from .config import TrainConfig
from .folder import RunFolder, check_same, default_path
from .objective import SAMPLE_STREAM
from .pictures import reconstruction_grid, sample_grid, write_curves, write_image
from .progress import table
from .trainer import Trainer, check_pixels
from .world import open_world


def run(config: TrainConfig) -> int:
    """Train as ``config`` (resolved) says. Returns the exit status. Raises InputError for what the user can mend."""
    with open_world(config.device) as world:
        if not world.is_main:
            world.barrier()
        dataset = load(config.data, config.data_dir)
        if world.is_main:
            world.barrier()  # it loads first, so that a download happens once
        check_pixels(config, dataset)
        console = Console(quiet=not world.is_main, highlight=False, soft_wrap=True)
        # The folder comes after all that can be wrong: a refused run leaves nothing behind.
        found = _find(config, console)
        folder = RunFolder(config.out or default_path(config), config, dataset, world) if world.is_main else None
        trainer = Trainer(config, dataset, world, folder, console)
        if found is not None:
            trainer.restore(found)
        console.print(
            f"fastvae: preset {config.preset} on {dataset.name}, {len(dataset.train):,} images, "
            f"{config.precision} on {world.device}, {world.size} process{'es' if world.size > 1 else ''}"
        )
        status = trainer.fit()
        if folder is not None:
            if status == 0:
                _finish(trainer, folder, console)
            else:
                console.print(
                    f"stopped by {signal.Signals(status - 128).name} at step {trainer.step}, nothing is lost: "
                    f"go on with the same command and --out {folder.path} --resume"
                )
            folder.close()
    return status


def _find(config: TrainConfig, console: Console) -> Checkpoint | None:
    """The checkpoint to go on from, if that is asked for."""
    if not config.resume or config.out is None:
        return None
    check_same(config.out, config)
    file, found, skipped = checkpoint.newest(config.out / "checkpoints")
    for reason in skipped:
        console.print(f"skipped: {reason}", style="yellow")
    console.print(f"going on from {file}, step {found.values['step']}")
    return found


def _finish(trainer: Trainer, folder: RunFolder, console: Console) -> None:
    model, images = trainer.engine.model.eval(), trainer.test_loader.images[:32]
    noise = Noise(trainer.config.seed, stream=SAMPLE_STREAM, device=trainer.world.device)
    pictures = [
        write_curves(folder.metrics(), folder.path / "loss.png"),
        write_image(sample_grid(model.sample(64, noise)), folder.path / "samples.png"),
        write_image(reconstruction_grid(images, model.reconstruct(images)), folder.path / "reconstructions.png"),
    ]
    last = next(line for line in reversed(folder.metrics()) if line["split"] == "test")
    rows = {
        "test loss (negative ELBO)": f"{last['loss']:.2f} nats = nll {last['nll']:.2f} + kl {last['kl']:.2f}",
        "run's folder": str(folder.path),
        "pictures in it": ", ".join(path.name for path in pictures),
        "look closer": f"fastvae evaluate {folder.path}",
    }
    if trainer.epoch_seconds:
        seconds = statistics.median(trainer.epoch_seconds)
        rate = len(trainer.dataset.train) / seconds
        rows["time per epoch"] = f"{seconds:.3f} s (median), {rate:,.0f} images/s"
    if trainer.config.beta != 1:
        rows["beta"] = f"{trainer.config.beta:g}: the test loss above is nll + beta * kl, not the ELBO"
    console.print(table(f"{trainer.config.preset} on {trainer.dataset.name}, {trainer.epoch} epochs", rows))
