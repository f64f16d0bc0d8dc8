"""The check that a run resumes with the settings that it was trained with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastvae.utils.errors import InputError
from fastvae.utils.settings import flag, marked

from .config import TrainConfig
from .resolve import resolve
from .resolved_config import ResolvedConfig


def check_resumable(path: Path, settings: Mapping[str, Any], config: ResolvedConfig) -> None:
    """Compare the settings of a run with those to resume it with, as far as they decide its numbers.

    Args:
        path: the run folder, for the message.
        settings: the settings that the run was trained with, from its config.json.
        config: the settings to resume with.

    Raises:
        InputError: a setting that fixes the numbers of a run has another value.
    """
    defaults = resolve(TrainConfig(preset=config.preset))
    # Another preset explains all that it fills in: it is told first.
    filled_in = marked(config, "from_preset")
    for name in sorted(marked(config, "fixes_numbers"), key=lambda name: name in filled_in):
        now = getattr(config, name)
        before = settings.get(name, getattr(defaults, name))  # older versions had fewer settings
        if before != now:
            raise InputError(
                f"--resume: {path} was trained with {flag(name)} {before}, not {now}: "
                "use the same value, or another --out"
            )
