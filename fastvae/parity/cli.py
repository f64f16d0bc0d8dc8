"""``python -m fastvae.parity``: the flags and the exit status."""

from collections.abc import Sequence

from fastvae.train.cli import guarded
from fastvae.utils.settings.command_line import parse

from .config import ParityConfig


def main(arguments: Sequence[str]) -> int:
    """Run a command line. Returns the exit status."""
    return guarded(lambda: _compare(parse(ParityConfig, arguments, program="python -m fastvae.parity")))


def _compare(config: ParityConfig) -> int:
    from .table import compare  # noqa: PLC0415 -- torch comes with it: not for --help

    return compare(config)
