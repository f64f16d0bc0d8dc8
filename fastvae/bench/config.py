"""Settings of ``fastvae bench``. Each field is a flag of the command line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

_File = Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: none)")]
_Number = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: the preset's)")]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Race training loops for one network: a tutorial's, torch's fastest, pythae's if installed, fastvae's.

    They run in one process and take turns. If their losses disagree, the comparison is void and the exit status is 1.
    """

    preset: Literal["basic", "keras", "deep", "leaky", "gaussian", "classic", "conv28"] = "leaky"
    """Network and training recipe."""
    data: str = "mnist"
    """Data set, as for fastvae train."""
    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: none)")] = None
    """Folder with the data set's files. Default: $FASTVAE_DATA; without that, they are downloaded."""
    batch_size: _Number = None
    """Batch size of all contenders."""
    epochs: int = 3
    """Timed epochs per contender and seed, after one to warm up. With --steps, timed slices of epochs."""
    steps: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: all)")] = None
    """Time slices of this many steps at the start of an epoch, in place of whole epochs."""
    seeds: int = 1
    """Number of complete runs, each with different weights, batches and noise."""
    compile: bool = True
    """Include the contenders that use torch.compile, which takes minutes."""
    contenders: Annotated[
        tuple[str, ...], tyro.conf.arg(metavar="[PATTERN [PATTERN ...]]", help_behavior_hint="(default: all)")
    ] = ()
    """Race only contenders whose name in the table matches a shell pattern ('torch*'). Ratios are among these."""
    device: str = "auto"
    """Device: auto, cpu or cuda."""
    json: _File = None
    """Write all measurements to this file."""
    plot: _File = None
    """Plot the time per step to this PNG file; the comparison with pythae goes to NAME-pythae.png beside it."""
