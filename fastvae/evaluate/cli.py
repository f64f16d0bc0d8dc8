"""The commands that look at a trained run: ``fastvae sample``, ``reconstruct``, ``evaluate`` (``nll`` is in nll.py)."""

import math
from pathlib import Path

from rich.bar import Bar
from rich.table import Table
from torch import Tensor

from fastvae.ops import Noise, bits_per_dimension
from fastvae.train.distributed.world import resolve_device
from fastvae.train.report.bound import describe_bound
from fastvae.train.report.figures import grid_bytes, reconstruction_grid, sample_grid, write_image
from fastvae.train.report.progress import trained
from fastvae.train.step.loss import SAMPLE_STREAM
from fastvae.utils.errors import InputError
from fastvae.utils.files import reason
from fastvae.utils.machine import check_fits
from fastvae.utils.terminal import Terminal

from .saved_run import SavedRun, Which, evaluate

_console = Terminal()
_LOOKED_AT = 32  # test images, to tell whether they are black and white


def sample(
    path: Path, count: int, seed: int, out: Path | None, device: str, which: Which, *, draw: bool = False
) -> None:
    """Write a grid of ``count`` images of latents from the prior: means of the likelihood, or with ``draw`` draws."""
    _at_least_one(count)
    if not 0 <= seed < 2**63:
        raise InputError(f"--seed is {seed}: it must be in [0, 2**63)")
    run = SavedRun.open(path, resolve_device(device), which)
    check_fits(count * grid_bytes(run.shape), f"--count {count}: their grid", "give a smaller one")
    noise = Noise(seed, stream=SAMPLE_STREAM)
    images = run.model.sample(count, noise, draw=draw)
    _write(sample_grid(images), out or path / ("draws.png" if draw else "samples.png"))


def reconstruct(
    path: Path,
    count: int,
    data_dir: Path | None,
    out: Path | None,
    device: str,
    which: Which,
    data: str | None = None,
) -> None:
    """Write a grid of the first ``count`` test images above their reconstructions."""
    _at_least_one(count)
    place = resolve_device(device)
    run = SavedRun.open(path, place, which, data)
    images = run.announced_test_loader(data_dir).first(count)
    _write(reconstruction_grid(images, run.model.reconstruct(images)), out or path / "reconstructions.png")


def show_evaluation(path: Path, data_dir: Path | None, device: str, which: Which, data: str | None = None) -> None:
    """Print the test ELBO, its terms, and the KL of each latent dimension."""
    run = SavedRun.open(path, resolve_device(device), which, data)
    loader = run.announced_test_loader(data_dir)
    result = evaluate(run, loader)
    terms = result.terms
    active = int(result.active.sum())
    _console.print(
        f"{path}: preset {run.settings['preset']}, {trained(run.epoch, run.steps)}, on {loader.count:,} test images"
    )
    _console.print(f"test ELBO {-terms.loss:.3f} nats = -(nll {terms.nll:.3f} + kl {terms.kl:.3f})")
    _console.print(f"-ELBO is {describe_bound(terms.loss, run.model.likelihood, loader.first(_LOOKED_AT))}")
    if run.model.likelihood.is_code_length:
        bits = bits_per_dimension(terms.loss, math.prod(run.shape))
        _console.print(f"{bits:.3f} bits per dimension, by the ELBO")
    _console.print(f"active units {active} of {len(result.active)}")
    table = Table("dimension", "KL (nats)", "active", "", title="KL of each latent dimension, largest first")
    largest = result.kl_per_dimension.max().item()
    for dimension in result.kl_per_dimension.argsort(descending=True).tolist():
        kl = result.kl_per_dimension[dimension].item()
        mark = "yes" if result.active[dimension] else "no"
        table.add_row(str(dimension), f"{kl:.3f}", mark, Bar(max(largest, 1e-9), 0, kl, width=30))
    _console.print(table)


def _at_least_one(count: int) -> None:
    if count < 1:
        raise InputError(f"--count is {count}: it must be at least 1")


def _write(grid: Tensor, path: Path) -> None:
    if path.suffix.lower() != ".png":
        raise InputError(f"--out is {path}, but pictures are written as PNG: name it {path.with_suffix('.png')}")
    try:
        write_image(grid, path)
    except OSError as error:
        raise InputError(f"cannot write {path} ({reason(error)}): choose another --out") from error
    _console.print(str(path))
