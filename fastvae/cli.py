"""Command line: ``fastvae train | sample | reconstruct | evaluate | nll | bench | doctor``."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from ._command import lengthen_waits
from .bench.config import Bench
from .train import TrainConfig
from .train.cli import guarded
from .train.cli import main as train_main
from .utils.settings import REQUIRED, setting
from .utils.settings.command_line import parse_command

Which = Literal["last", "best"]


@dataclass(frozen=True, kw_only=True)
class _OfRun:
    """The settings of every command that looks at a trained run."""

    run: Path = setting(REQUIRED, positional=True, metavar="RUN", help="Folder of the run.")
    checkpoint: Which = setting(
        "last", help="Weights to use: of the last checkpoint, or of the epoch with the smallest test loss (best)."
    )
    device: str = setting("auto", metavar="{auto,cpu,cuda}", help="Device to use; auto takes a GPU if there is one.")


@dataclass(frozen=True, kw_only=True)
class _OfItsData(_OfRun):
    """The settings of every command that reads the run's test images."""

    data: str | None = setting(
        None,
        metavar="NAME",
        shown_default="the run's",
        help="The run's images where they have moved since, or other ones.",
    )
    data_dir: Path | None = setting(
        None, metavar="DIR", shown_default="the run's", help="Folder that holds the data set's files."
    )


@dataclass(frozen=True, kw_only=True)
class Sample(_OfRun):
    """Write a PNG of pictures from a trained run: for latents drawn from the prior, the mean of the likelihood of each
    pixel, or with --draw pixels drawn from it.
    """

    count: int = setting(64, help="Number of pictures.")
    seed: int = setting(0, help="Random seed for the latents and for --draw.")
    draw: bool = setting(
        False,
        help="Draw each pixel from the likelihood, given the decoder's output; otherwise its mean is written, which is "
        "smoother than any picture that the model generates.",
    )
    out: Path | None = setting(
        None,
        metavar="FILE",
        shown_default="samples.png in the run's folder, or draws.png with --draw",
        help="PNG file to write.",
    )


@dataclass(frozen=True, kw_only=True)
class Reconstruct(_OfItsData):
    """Write a PNG of test pictures above their reconstructions by a trained run: the mean of the likelihood of each
    pixel, at the mean of the latents' posterior.
    """

    count: int = setting(32, help="Number of pictures.")
    out: Path | None = setting(
        None, metavar="FILE", shown_default="reconstructions.png in the run's folder", help="PNG file to write."
    )


@dataclass(frozen=True, kw_only=True)
class Evaluate(_OfItsData):
    """Measure a trained run on its test set: ELBO, nll = -log p(x | z), KL of each latent dimension, active units."""


@dataclass(frozen=True, kw_only=True)
class Nll(_OfItsData):
    """Estimate -log p(x) of a trained run's test set, in nats per image, by importance sampling."""

    samples: int = setting(
        5000, help="Importance samples per image. The estimate is an upper bound, tighter with more samples."
    )
    images: int | None = setting(
        None, shown_default="all", help="Number of images to estimate it on, from the start of the test set."
    )
    precision: Literal["fp32", "bf16", "fp64"] = setting(
        "fp32", help="Arithmetic; bf16: of the decoder's matrix products alone, whose sums are fp32."
    )
    out: Path | None = setting(
        None,
        metavar="FILE",
        shown_default="nll-CHECKSUM.json in the run's folder",
        help="JSON file for the estimate of each image. An interrupted command, typed again, goes on from it.",
    )
    nproc: int | None = setting(
        None,
        metavar="N",
        shown_default="1, or torchrun's",
        help="Number of processes to start on this machine, which share the images.",
    )


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Report what this machine and this installation have, what is missing, and how to get it."""


_DESCRIPTION = "Train variational autoencoders, look at trained runs, and measure this machine."
COMMANDS: Mapping[str, type] = MappingProxyType(
    {
        "train": TrainConfig,
        "sample": Sample,
        "reconstruct": Reconstruct,
        "evaluate": Evaluate,
        "nll": Nll,
        "bench": Bench,
        "doctor": Doctor,
    }
)


def main() -> None:
    """Run the ``fastvae`` command."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Carry out a command line. Returns the exit status: 2 for bad input, which is one line on stderr."""
    if arguments[:1] == ["train"]:
        return train_main(arguments[1:])
    return guarded(
        lambda: _carry_out(parse_command(COMMANDS, arguments, program="fastvae", description=_DESCRIPTION), arguments)
    )


def _carry_out(command: object, arguments: Sequence[str]) -> int:
    if isinstance(command, Bench):
        lengthen_waits()  # as torch's own loops wait; a benchmark is alone
        from .bench.cli import bench  # noqa: PLC0415 -- each command loads what it needs: --help stays quick

        return bench(command)
    if isinstance(command, Doctor):
        from .doctor import examine  # noqa: PLC0415

        return examine()
    if isinstance(command, Nll):
        return _nll(command, arguments)
    from .evaluate import cli as evaluate  # noqa: PLC0415

    if isinstance(command, Sample):
        evaluate.sample(
            command.run,
            command.count,
            command.seed,
            command.out,
            command.device,
            command.checkpoint,
            draw=command.draw,
        )
    elif isinstance(command, Reconstruct):
        evaluate.reconstruct(
            command.run, command.count, command.data_dir, command.out, command.device, command.checkpoint, command.data
        )
    elif isinstance(command, Evaluate):
        evaluate.show_evaluation(command.run, command.data_dir, command.device, command.checkpoint, command.data)
    return 0


def _nll(command: Nll, arguments: Sequence[str]) -> int:
    """Estimate the log-likelihood, on as many processes as were asked for."""
    from .evaluate.nll import NllSettings, show_nll  # noqa: PLC0415
    from .train.distributed.launch import launch  # noqa: PLC0415

    asked = NllSettings(
        path=command.run,
        samples=command.samples,
        images=command.images,
        precision=command.precision,
        data_dir=command.data_dir,
        device=command.device,
        which=command.checkpoint,
        data=command.data,
        out=command.out,
    )

    def work() -> int:
        show_nll(asked)
        return 0

    return launch(command.nproc, arguments, work, module="fastvae")
