"""Hostile environment variables, names of folders and output streams."""

import os
import socket
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from case import Case
from inputs import train
from place import Place
from undisturbed import TRAIN
from watch import Outcome, Watched

_RANKS = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
_ONE_EPOCH = (*TRAIN, "--epochs", "1", "--out", "out")
_servers: list[socket.socket] = []  # kept open by the process of the case


def _server() -> int:
    """Start a server that accepts connections and never answers; return its port."""
    server = socket.create_server(("127.0.0.1", 0))
    server.listen(16)
    _servers.append(server)
    return int(server.getsockname()[1])


def _with(variables: Mapping[str, str], place: Place) -> tuple[str, ...]:
    place.environment.update(variables)
    return _ONE_EPOCH


def _meeting(variables: Mapping[str, str], place: Place) -> tuple[str, ...]:
    return _with({**_RANKS, "MASTER_PORT": str(_server()), **variables}, place)


def _evaluated(name: str, place: Place) -> tuple[str, ...]:
    place.copy_run(name)
    return ("fastvae", "evaluate", name)


def _trained(name: str, place: Place) -> list[str]:
    command = train("digits")
    return [*command[: command.index("--out")], "--out", name]


def _shows(name: str, _: Place, outcome: Outcome) -> str | None:
    return None if name in outcome.stdout + outcome.stderr else f"{name!r} is not shown literally"


def _shows_losses(_: Place, outcome: Outcome) -> str | None:
    return None if "epoch 1" in outcome.stdout + outcome.stderr else "nothing of the epoch was shown"


def _no_room(place: Place) -> tuple[str, ...]:
    place.stdout = Path("/dev/full")
    return _ONE_EPOCH


def _closes_early(place: Place) -> tuple[str, ...]:
    """Make standard output a pipe whose reader exits at once."""
    os.mkfifo(place.root / "pipe")
    place.stdout = place.root / "pipe"
    return _ONE_EPOCH


def _leave(place: Place, _: Watched) -> bool:
    """Open the pipe for reading, so that the command can open it, and close it."""
    os.close(os.open(place.stdout, os.O_RDONLY | os.O_NONBLOCK))
    return False


_TAG, _RED = "r[/red]", "r[red]"
CASES = [
    Case(id="E03", what="WORLD_SIZE=10**30", build=partial(_meeting, {"WORLD_SIZE": str(10**30)}), quick=True),
    Case(id="E04", what="RANK of Unicode digits", build=partial(_meeting, {"RANK": "²"})),
    Case(id="E05", what="MASTER_PORT of another server",
         build=partial(_meeting, {"RANK": "1", "FASTVAE_RENDEZVOUS_TIMEOUT": "5"})),
    Case(id="E06", what="MASTER_PORT in use", build=partial(_meeting, {})),
    Case(id="E07", what="MASTER_ADDR=no.such.host.invalid", seconds=90,
         build=partial(_meeting, {"RANK": "1", "MASTER_ADDR": "no.such.host.invalid"})),
    Case(id="E08", what="FASTVAE_AGENT_PID=abc", build=partial(_with, {"FASTVAE_AGENT_PID": "abc"}), expect="either",
         quick=True),
    Case(id="E09", what="FASTVAE_AGENT_PID=1", build=partial(_with, {"FASTVAE_AGENT_PID": "1"}),
         expect="either"),
    Case(id="E10", what="FASTVAE_CPU_CAPABILITY=avx9000", fresh=True,
         build=partial(_with, {"FASTVAE_CPU_CAPABILITY": "avx9000"})),
    Case(id="E13", what="COLUMNS=0", build=partial(_with, {"COLUMNS": "0"}), expect="right", check=_shows_losses,
         quick=True),
    Case(id="E14", what="COLUMNS=x", build=partial(_with, {"COLUMNS": "x"}), expect="right", check=_shows_losses),
    Case(id="E15", what="FASTVAE_DATA of escape sequences", expect="either",
         build=partial(_with, {"FASTVAE_DATA": "\x1b[31m\n"})),
    Case(id="B01", what=f"evaluate a run whose path reads as a Rich tag: {_TAG}", build=partial(_evaluated, _TAG),
         expect="right", check=partial(_shows, _TAG), quick=True),
    Case(id="B02", what=f"evaluate a run named {_RED}", build=partial(_evaluated, _RED), expect="right",
         check=partial(_shows, _RED)),
    Case(id="B03", what="train into a folder that reads as a Rich tag", build=partial(_trained, _RED), expect="right",
         check=partial(_shows, _RED)),
    Case(id="B04", what="a run's folder with escape sequences", build=partial(_evaluated, "r\x1b[31m\n"),
         expect="either"),
    Case(id="L07", what="stdout is /dev/full", build=_no_room, expect="either", fresh=True),
    Case(id="L08", what="the reader of stdout exits", build=_closes_early, during=_leave, expect="either"),
]  # fmt: skip
