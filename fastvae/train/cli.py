"""Command line to exit status, for both ``fastvae train`` and ``python -m fastvae.train``.

It imports no torch before the flags are parsed, nor does any other command.
"""

import os
from collections.abc import Callable, Sequence

from fastvae._command import lengthen_waits
from fastvae.models.presets import PRESETS
from fastvae.utils import terminal
from fastvae.utils.errors import InputError, LocalError
from fastvae.utils.files import reason
from fastvae.utils.machine import OtherLoad, shortage
from fastvae.utils.settings import on_command_line
from fastvae.utils.settings.command_line import parse

from .config import TrainConfig, resolve
from .config.resolve import with_folder
from .distributed.ranks import LostRankError, read_ranks
from .stopping import Stopped, stop_told, stops_raised


def main(arguments: Sequence[str]) -> int:
    """Parse the flags of ``train``, start the processes and train. Returns the exit status."""
    return guarded(lambda: _train(arguments))


def _train(arguments: Sequence[str]) -> int:
    # torchrun may pass on the "--" that keeps its parser away from our flags (see fastvae/_torchrun.py).
    arguments = [argument for argument in arguments if argument != "--"]
    config = with_folder(parse(TrainConfig, arguments, program="fastvae train"))
    if _gives_way(config):
        lengthen_waits()
    load = OtherLoad()  # sees what else runs here while torch is imported, which takes seconds
    if not config.resume:  # else its folder has most of the settings
        resolve(config)

    # All that needs torch is imported from here on: --help and wrong flags come before it.
    from .distributed.launch import launch  # noqa: PLC0415

    def work() -> int:
        from .step.inductor import keep_compiled, spare_dynamo  # noqa: PLC0415

        keep_compiled()  # before torch chooses a folder that all users share
        spare_dynamo()
        from .run import run  # noqa: PLC0415

        return run(config, load=load).status

    try:
        return launch(config.nproc, arguments, work, max_restarts=config.max_restarts)
    except Stopped as stop:
        if not stop.has_trained and _reports():
            terminal.complain(stop_told(stop.signal, 0))
        raise


def _gives_way(config: TrainConfig) -> bool:
    """Return whether a run will take fewer threads beside other programs, as :mod:`.start.thread_policy` says later."""
    preset = PRESETS.get(config.preset)
    is_dense = preset is not None and preset.network == "mlp" and not config.resume  # whose folder names its preset
    is_free = config.autotune and not config.deterministic and "OMP_NUM_THREADS" not in os.environ
    is_alone = config.nproc in (None, 1) and read_ranks() is None
    has_readers = os.path.exists(config.data) or ":" in config.data  # of pictures, in processes of their own
    return is_dense and is_free and is_alone and not has_readers


def guarded(work: Callable[[], int]) -> int:
    """Run ``work``; turn bad input into one line and status 2, and a signal into 128 + its number (Ctrl-C: 130).

    Output that cannot be written, to a full disk for example, does not end the work: it is reported at the end, with
    status 2.
    """
    terminal.prepare()
    try:
        with on_command_line(), stops_raised():
            status = work()
    except InputError as error:
        if isinstance(error, LocalError) or _reports():
            terminal.complain(f"fastvae: error: {error}")
        return 2
    except Stopped as stop:
        return 128 + stop.signal
    except LostRankError as error:
        if _reports():
            terminal.complain(f"fastvae: error: {error}")
        return 1
    except (MemoryError, RuntimeError) as error:
        told = shortage(error)
        if told is None:
            raise
        terminal.complain(
            f"fastvae: error: out of memory: {told}: use a smaller --batch-size, --image-size, --width or --samples, "
            "or less at once"
        )
        return 2
    lost = terminal.refusal()
    if lost is None or status:
        return status
    terminal.complain(f"fastvae: error: cannot write to standard output ({reason(lost)}): some of it is lost")
    return 2


def _reports() -> bool:
    """Tell whether this process reports a fault that all processes find: rank 0 does."""
    try:
        ranks = read_ranks()
    except InputError:  # the ranks themselves are at fault, perhaps in this process alone
        return True
    return ranks is None or ranks.rank == 0
