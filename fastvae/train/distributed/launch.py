"""``--nproc N``: one command, N processes, through torch's own elastic agent."""

import ctypes
import logging
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from fastvae.utils.errors import InputError
from fastvae.utils.machine import check_fits
from fastvae.utils.terminal import complain

from .ranks import LostRankError, read_ranks
from .rendezvous import BACKEND, private_folder

_AGENT = "FASTVAE_AGENT_PID"
TORCHRUN_VARIABLES = {
    "GROUP_RANK",
    "GROUP_WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "RANK",
    "ROLE_NAME",
    "ROLE_RANK",
    "ROLE_WORLD_SIZE",
    "WORLD_SIZE",
}
# Seconds that signalled workers get to save a checkpoint; torchrun kills its own workers after 30.
_GRACE = "25"
_PROCESS = 200 << 20  # bytes that a process takes once it has imported torch, at least
_PR_SET_PDEATHSIG = 1
_LET_FIRST = 0.5  # seconds: the agent, which looks every 0.1 s, has to find the process that died before the others
_PASSED_ON = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")
_WORKER = Path(__file__).with_name("worker.py")


def launch(
    nproc: int | None,
    arguments: Sequence[str],
    main: Callable[[], int],
    *,
    module: str = "fastvae.train",
    max_restarts: int = 0,
) -> int:
    """Run `main` here if this is one of `nproc` processes, else start them.

    They are started as `python -m MODULE ARGUMENTS`, but without the current folder in their search path, unless
    torchrun started several processes already. SIGINT, SIGTERM, SIGHUP and SIGQUIT are passed on to each process, which
    may get one more SIGTERM after that, and has 25 seconds (TORCH_ELASTIC_SHUTDOWN_TIMEOUT) to exit. None outlives this
    process: if it is killed, they get SIGTERM. If one of them fails, all are started again, up to `max_restarts` times;
    TORCHELASTIC_RESTART_COUNT counts the restarts.

    Returns:
        The exit status: what `main` returns, or that of the process that failed first (128 + N if signal N killed
        it), or 128 + N if this process got signal N.

    Raises:
        InputError: `nproc` is below 1, more than memory has room for, or contradicts torchrun, as `max_restarts` may,
            or torchrun's environment variables are malformed.
    """
    if nproc is not None and nproc < 1:
        raise InputError(f"--nproc {nproc} is less than 1: give the number of processes, one for each GPU")
    if nproc is not None:
        check_fits(nproc * _PROCESS, f"--nproc {nproc:,}: starting torch in each", "use one for each GPU or core")
    ranks = read_ranks()
    size = ranks.size if ranks else 1
    if max_restarts and ranks is None:
        return _run_workers(nproc or 1, [module, *arguments], max_restarts)
    if max_restarts and _AGENT not in os.environ:
        raise InputError(f"--max-restarts {max_restarts}, but torchrun started this: give it to torchrun instead")
    if nproc is None or nproc == size:
        if not _follow_agent():
            return main()
        _tell_restart(max_restarts)
        try:
            return main()
        except LostRankError:  # the agent tells of the process that died
            time.sleep(_LET_FIRST)
            return 1
    if size > 1:
        raise InputError(
            f"--nproc {nproc}, but torchrun started {size} processes: leave --nproc out, or use --nproc-per-node"
        )
    return _run_workers(nproc, [module, *arguments], 0)


def _run_workers(nproc: int, command: list[str], max_restarts: int) -> int:
    run_id = uuid.uuid4().hex
    with _agent_settings(), private_folder(run_id) as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=nproc,
            run_id=run_id,
            role="fastvae",
            rdzv_backend=BACKEND,
            rdzv_endpoint=str(folder),
            local_addr="localhost",  # the host's own name may not resolve
            max_restarts=max_restarts,
            signals_to_handle=",".join(name for name in _PASSED_ON if not _is_ignored_hangup(name)),
            logs_specs=DefaultLogsSpecs(log_dir=str(folder)),  # a folder is mandatory, though nothing is logged there
        )
        # The agent expands ${local_rank} and $$ in arguments; these are literal.
        literal = [argument.replace("$", "$$") for argument in (str(_WORKER), *command)]
        try:
            elastic_launch(config, sys.executable)(*literal)
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            if failure.exitcode >= 0:
                return int(failure.exitcode)
            name = signal.Signals(-failure.exitcode).name
            complain(f"fastvae: process {rank} of {nproc} was killed by {name}{_meaning(name)}")
            return 128 - int(failure.exitcode)
        except SignalException as error:
            return 128 + error.sigval
    return 0


@contextmanager
def _agent_settings() -> Iterator[None]:
    """Hide an outer torchrun from the agent and its workers, keep the agent quiet, and restore its signal handlers."""
    environment = dict(os.environ)
    for name in environment:
        if name in TORCHRUN_VARIABLES or name.startswith("TORCHELASTIC_"):
            del os.environ[name]
    grace = os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", _GRACE)
    if not (grace.isascii() and grace.isdecimal()):
        raise InputError(
            f"TORCH_ELASTIC_SHUTDOWN_TIMEOUT={grace!r} in the environment is not a whole number of seconds: unset it"
        )
    os.environ[_AGENT] = str(os.getpid())
    handlers = {number: signal.getsignal(number) for number in (signal.Signals[name] for name in _PASSED_ON)}
    # The agent's modules set the levels of their own loggers below this one: they can only be silenced here.
    logger = logging.getLogger("torch.distributed.elastic")
    propagate = logger.propagate
    silent = logging.NullHandler()
    logger.addHandler(silent)
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = propagate
        logger.removeHandler(silent)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.environ.clear()
        os.environ.update(environment)


def _meaning(name: str) -> str:
    """Return the likely cause of a signal that nobody sent on purpose, as a clause, or an empty string."""
    causes = {
        "SIGKILL": "perhaps for lack of memory",
        "SIGBUS": "a file that it reads was cut short",
    }
    return f": {causes[name]}" if name in causes else ""


def _is_ignored_hangup(name: str) -> bool:
    """Return whether a signal is the SIGHUP that nohup has this process ignore."""
    return name == "SIGHUP" and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def _tell_restart(max_restarts: int) -> None:
    """Say on rank 0 that the agent has started all processes again, since it says nothing itself."""
    ranks = read_ranks()
    count = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if count != "0" and ranks is not None and ranks.rank == 0:
        complain(f"fastvae: a process has died: all {ranks.size} are started again ({count} of {max_restarts} times)")


def _follow_agent() -> bool:
    """Have the kernel send this process SIGTERM when the agent that started it dies: a killed agent cannot.

    Returns False, and does nothing, if no agent of fastvae's started this process.

    Raises:
        InputError: the environment names an agent that is not this process's parent.
    """
    agent = os.environ.pop(_AGENT, None)
    if agent is None:
        return False
    if not agent.isdecimal() or "TORCHELASTIC_RUN_ID" not in os.environ:
        raise InputError(f"{_AGENT}={agent!r} in the environment was not set by fastvae's --nproc: unset it")
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(agent):  # dead already
        raise InputError(f"the process {agent} that started this one, by {_AGENT}, is gone: unset it, or start again")
    return True
