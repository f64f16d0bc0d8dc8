"""What ``fastvae bench`` is told: one flag for each field."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

_File = Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: none)")]
_Number = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: the preset's)")]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Race training loops for one network: a tutorial's, torch's fastest, pythae's if installed, fastvae's.

    In one process, in turns. The exit status is 1 if the losses disagree, which makes the comparison void.
    """

    preset: Literal["basic", "keras", "deep", "leaky", "gaussian", "classic", "conv28"] = "leaky"
    """Network and training recipe."""
    data: str = "mnist"
    """As for fastvae train."""
    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: none)")] = None
    """Folder with the data set's files; else $FASTVAE_DATA, else they are downloaded."""
    batch_size: _Number = None
    """Of all contenders."""
    epochs: int = 3
    """Timed epochs of each contender and seed, after one to warm up; or slices of epochs, with --steps."""
    steps: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: all)")] = None
    """Time slices of so many steps from the start of an epoch, in place of whole epochs."""
    seeds: int = 1
    """Runs of everything, with other weights, batches and noise."""
    compile: bool = True
    """With the contenders that compile, which takes minutes."""
    contenders: Annotated[
        tuple[str, ...], tyro.conf.arg(metavar="[PATTERN [PATTERN ...]]", help_behavior_hint="(default: all)")
    ] = ()
    """Race those alone whose whole name, as the table has it, matches one of these shell patterns: 'torch*' 'fastvae
    train' 'floor*'. Ratios are to those that race."""
    device: str = "auto"
    """auto, cpu or cuda."""
    json: _File = None
    """Write all that was measured."""
    plot: _File = None
    """Draw the steps' times, as PNG; the comparison with pythae goes to NAME-pythae.png beside it."""
