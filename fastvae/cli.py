"""``fastvae train | sample | reconstruct | evaluate | nll | bench | doctor``."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from .bench.config import Bench
from .train import TrainConfig
from .train.cli import guarded
from .train.cli import main as train_main

_Run = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
_Output = Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: in the run's folder)")]
_Folder = Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: the run's)")]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Draw pictures from the prior of a trained run."""

    run: _Run
    """The run's folder."""
    checkpoint: Literal["last", "best"] = "last"
    """The last checkpoint, or that of the epoch with the smallest test loss."""
    count: int = 64
    """How many."""
    seed: int = 0
    """Of the latents."""
    out: _Output = None
    """The PNG to write."""
    device: str = "auto"
    """auto, cpu or cuda."""


@dataclass(frozen=True, kw_only=True)
class Reconstruct:
    """Show test pictures above their reconstructions by a trained run."""

    run: _Run
    """The run's folder."""
    checkpoint: Literal["last", "best"] = "last"
    """The last checkpoint, or that of the epoch with the smallest test loss."""
    count: int = 32
    """How many."""
    data_dir: _Folder = None
    """Folder with the data set's files."""
    out: _Output = None
    """The PNG to write."""
    device: str = "auto"
    """auto, cpu or cuda."""


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure a trained run on its test set: ELBO, nll, KL, KL of each latent dimension, active units."""

    run: _Run
    """The run's folder."""
    checkpoint: Literal["last", "best"] = "last"
    """The last checkpoint, or that of the epoch with the smallest test loss."""
    data_dir: _Folder = None
    """Folder with the data set's files."""
    device: str = "auto"
    """auto, cpu or cuda."""


@dataclass(frozen=True, kw_only=True)
class Nll:
    """Estimate a trained run's negative log-likelihood of its test set, in nats, by importance sampling."""

    run: _Run
    """The run's folder."""
    samples: int = 5000
    """Importance samples an image: the estimate is an upper bound, and the tighter the more there are."""
    images: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: all)")] = None
    """Only so many, the first of the test set."""
    checkpoint: Literal["last", "best"] = "last"
    """The last checkpoint, or that of the epoch with the smallest test loss."""
    data_dir: _Folder = None
    """Folder with the data set's files."""
    device: str = "auto"
    """auto, cpu or cuda."""


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Say what this machine and this installation have, what is missing, and how to get it."""


COMMAND = (
    Annotated[TrainConfig, tyro.conf.subcommand("train")]
    | Annotated[Sample, tyro.conf.subcommand("sample")]
    | Annotated[Reconstruct, tyro.conf.subcommand("reconstruct")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Nll, tyro.conf.subcommand("nll")]
    | Annotated[Bench, tyro.conf.subcommand("bench")]
    | Annotated[Doctor, tyro.conf.subcommand("doctor")]
)


def main() -> None:
    """The ``fastvae`` command."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Carry out a command line. Returns the exit status: 2 for bad input, which is one line on stderr."""
    if arguments[:1] == ["train"]:
        return train_main(arguments[1:])
    command: object = tyro.cli(COMMAND, args=arguments, prog="fastvae", description=__doc__)
    return guarded(lambda: _carry_out(command))


def _carry_out(command: object) -> int:
    if isinstance(command, Bench):
        from .bench.cli import bench  # noqa: PLC0415 -- each command loads what it needs: --help stays quick

        return bench(command)
    if isinstance(command, Doctor):
        from .doctor import examine  # noqa: PLC0415

        return examine()
    from .evaluate import cli as evaluate  # noqa: PLC0415

    if isinstance(command, Sample):
        evaluate.sample(command.run, command.count, command.seed, command.out, command.device, command.checkpoint)
    elif isinstance(command, Reconstruct):
        evaluate.reconstruct(
            command.run, command.count, command.data_dir, command.out, command.device, command.checkpoint
        )
    elif isinstance(command, Evaluate):
        evaluate.show_evaluation(command.run, command.data_dir, command.device, command.checkpoint)
    elif isinstance(command, Nll):
        evaluate.show_nll(
            command.run, command.samples, command.images, command.data_dir, command.device, command.checkpoint
        )
    return 0
