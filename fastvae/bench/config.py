"""The settings of ``fastvae bench``: one flag for each field."""

from dataclasses import dataclass
from pathlib import Path

from fastvae.models import PRESETS
from fastvae.utils.settings import setting


def raced_presets() -> tuple[str, ...]:
    """Return the presets that the plain loops can train: a likelihood that torch has, and a simple rate."""
    return tuple(
        name
        for name, preset in PRESETS.items()
        if preset.likelihood in ("bernoulli", "gaussian") and preset.schedule != "iwae"
    )


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Race training loops for one network: a tutorial's, torch's fastest, jax's and pythae's if installed, fastvae's.

    All run in one process, in turns. The exit status is 1 if the losses disagree, which makes the comparison void.
    """

    preset: str = setting("leaky", group="race", choices=raced_presets, help="Network and training recipe.")
    data: str = setting("mnist", group="race", metavar="NAME", help="The images, as for fastvae train.")
    data_dir: Path | None = setting(
        None,
        group="race",
        metavar="DIR",
        shown_default="$FASTVAE_DATA, or download",
        help="Folder that holds the data set's files.",
    )
    batch_size: int | None = setting(
        None, group="race", shown_default="from the preset", help="Images per step of every contender.", low=1
    )
    device: str = setting(
        "auto", group="race", metavar="{auto,cpu,cuda}", help="Device to train on; auto takes a GPU if there is one."
    )
    contenders: tuple[str, ...] = setting(
        (),
        group="contender",
        metavar="[PATTERN [PATTERN ...]]",
        shown_default="all",
        help="Race only the contenders whose whole name, as the table shows it, matches one of these shell patterns: "
        "'torch*' 'jax*' 'fastvae train' 'floor*'. Ratios are to those that race.",
    )
    compile: bool = setting(
        True, group="contender", help="Include the contenders that torch compiles, which takes minutes."
    )
    epochs: int = setting(
        3,
        group="timing",
        help="Timed epochs for each contender and seed, after one epoch of warm-up; with --steps, timed slices of "
        "epochs.",
        low=1,
    )
    steps: int | None = setting(
        None,
        group="timing",
        shown_default="whole epochs",
        help="Time only this many steps from the start of each epoch.",
        low=1,
    )
    seeds: int = setting(
        1, group="timing", help="Number of times the race is repeated, with other weights, batches and noise.", low=1
    )
    json: Path | None = setting(
        None, group="report", metavar="FILE", shown_default="none", help="JSON file to write all measurements to."
    )
    plot: Path | None = setting(
        None,
        group="report",
        metavar="FILE",
        shown_default="none",
        help="PNG file to draw the times per step to. The comparison with pythae goes to NAME-pythae.png beside it.",
    )
