"""The settings of ``python -m fastvae.parity``: one flag for each field."""

from dataclasses import dataclass
from pathlib import Path

from fastvae.models import PRESETS
from fastvae.utils.settings import setting


def mlp_presets() -> tuple[str, ...]:
    """Return the presets whose network the reference's loop can train: the MLPs."""
    return tuple(name for name, preset in PRESETS.items() if preset.network == "mlp")


@dataclass(frozen=True, kw_only=True)
class ParityConfig:
    """Train by the reference's eager loop and by fastvae, side by side, and say whether they agree.

    Both have the same weights, batches and noise, in each precision, execution and backend that this machine has. The
    exit status is 0 if all agree, 1 if not.
    """

    preset: str = setting("classic", choices=mlp_presets, help="Network and training recipe.")
    data: str = setting("digits", metavar="NAME", help="The images, as for fastvae train; digits are included.")
    data_dir: Path | None = setting(
        None,
        metavar="DIR",
        shown_default="$FASTVAE_DATA, or download",
        help="Folder that holds the data set's files.",
    )
    steps: int = setting(100, help="Training steps per run.", low=1)
    compiled: bool = setting(
        False, help="Also run steps compiled by TorchInductor, which takes about ten seconds for each shape of a batch."
    )
    device: str = setting(
        "auto", metavar="{auto,cpu,cuda}", help="Device to train on; auto takes a GPU if there is one."
    )
    seed: int = setting(8, help="Random seed of the initial weights, the order of the batches and the noise.")
