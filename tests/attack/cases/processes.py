"""Attacks on processes: planted modules, listening sockets, killed workers, data that are truncated during a run."""

import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
from case import Case
from inputs import PICTURES, folder_of_pictures, images, python, train
from place import Place
from undisturbed import TRAIN
from watch import Outcome, Watched

from .arrays import described

_TWO = ("--nproc", "2")
_RESTARTS = ("--max-restarts", "1")
_LISTEN = "0A"


def _planted(names: tuple[str, ...], command: list[str], place: Place) -> list[str]:
    """Plant modules in the current folder, as a downloaded data set could."""
    for name in names:
        (place.work / name).write_text(f"open({str(place.ran)!r}, 'a').write({name!r} + ' ')\n")
    np.save(place.root / "x.npy", images())
    return command


def listening(pid: int) -> list[str]:
    """Return the addresses that a process listens on."""
    try:
        names = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]
        lines = [line for kind in ("tcp", "tcp6") for line in Path(f"/proc/{pid}/net/{kind}").read_text().splitlines()]
    except OSError:  # it ended
        return []
    inodes = {name[8:-1] for name in names if name.startswith("socket:[")}
    rows = [line.split() for line in lines]
    return [_address(row[1]) for row in rows if row[3] == _LISTEN and row[9] in inodes]


def _address(text: str) -> str:
    """Format an address of /proc/net/tcp, such as ``0100007F:1F90``: 127.0.0.1:8080."""
    digits, _, port = text.partition(":")
    words = b"".join(bytes.fromhex(digits[at : at + 8])[::-1] for at in range(0, len(digits), 8))
    family = socket.AF_INET if len(words) == 4 else socket.AF_INET6
    return f"{socket.inet_ntop(family, words)}:{int(port, 16)}"


def _note_sockets(place: Place, watched: Watched) -> bool:
    for number, pid in enumerate(watched.processes()):
        who = "the first process" if number == 0 else "a child process"
        place.notes += [f"{who}: {address}" for address in listening(pid)]
    time.sleep(0.2)  # leaves the command time to run, because looking is slow
    return False


def _only_here(place: Place, _: Outcome) -> str | None:
    found = sorted(set(place.notes))
    others = [note for note in found if not note.rpartition(":")[0].endswith((" 127.0.0.1", " ::1"))]
    return f"listens on {'; '.join(others)}" if others else None


_INTRUDE = """
import sys, base64, os, pickle, datetime
from torch.distributed import TCPStore
class Evil:
    def __reduce__(self):
        return os.system, (f"touch {sys.argv[2]}",)
store = TCPStore("127.0.0.1", int(sys.argv[1]), is_master=False, wait_for_workers=False,
                 timeout=datetime.timedelta(seconds=3))
evil = base64.b64encode(pickle.dumps(Evil()))
for key in store.list_keys():
    key = key.removeprefix("/")
    if "rendezvous" in key:
        store.set(key, evil)
"""


def _intrude(place: Place, watched: Watched) -> bool:
    """Connect to each port of the first process, and put a pickle into its rendezvous."""
    ports = {address.rpartition(":")[2] for address in listening(watched.pid)}
    if not ports:
        return False
    for port in ports:
        subprocess.run([sys.executable, "-c", _INTRUDE, port, str(place.ran)], timeout=40, check=False,
                       capture_output=True)  # fmt: skip
    return True


def _kill_worker(place: Place, watched: Watched) -> bool:
    """Kill a data worker once there is one."""
    if not (place.work / "out" / "checkpoints").exists():
        return False
    workers = [pid for pid in watched.processes()[1:] if _is_worker(pid)]
    if not workers:
        return False
    os.kill(workers[-1], signal.SIGKILL)
    return True


def _is_worker(pid: int) -> bool:
    """Return True if multiprocessing's forkserver started the process: both have the same command line."""
    try:
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        lines = [Path(f"/proc/{number}/cmdline").read_bytes() for number in (pid, parent)]
    except (OSError, ValueError):
        return False
    return b"forkserver" in lines[0] and lines[0] == lines[1]


def _workers(place: Place) -> list[str]:
    folder_of_pictures(place.work / "d", 400)
    return [*TRAIN, "--data", "d", *PICTURES, "--loader", "torch", "--workers", "2", "--epochs", "500",
            "--batch-size", "16", "--checkpoint-every", "10", "--out", "out"]  # fmt: skip


_LOST = ("--loader", "torch", "--workers", "0", "--epochs", "100000", "--checkpoint-every", "5", "--batch-size", "16")


def _large(place: Place) -> list[str]:
    """Write an array so large that it is mapped rather than read."""
    with (place.work / "x.npy").open("wb") as file:
        file.write(described("(20000, 256, 256)"))
        file.truncate(file.tell() + 20000 * 256 * 256)
    return [*TRAIN, "--data", "x.npy", "--image-size", "8", *_LOST, "--out", "out"]


def _cached(place: Place) -> list[str]:
    folder_of_pictures(place.work / "d", 400)
    return [*TRAIN, "--data", "d", "--image-size", "64", "--cache", "kept", *_LOST, "--out", "out"]


def _cut(name: str, place: Place, _: Watched) -> bool:
    if not list((place.work / "out" / "checkpoints").glob("step-*")):
        return False
    for path in place.work.glob(name):
        os.truncate(path, 1 << 13)
    time.sleep(0.2)
    return True


_GRADIENT = """
import torch
from fastvae.ops import laplace_nll
gradients = []
for backend in ("reference", "native"):
    location = torch.tensor([[float("nan"), 0.5]], requires_grad=True)
    laplace_nll(location, torch.tensor([[0.5, 0.25]]), backend=backend).backward()
    gradients.append(location.grad)
print("alike" if all(gradient.isnan()[0, 0] for gradient in gradients) else gradients)
"""


def _is_alike(_: Place, outcome: Outcome) -> str | None:
    return None if outcome.stdout == "alike\n" else outcome.stdout


_LONG = ("--epochs", "40", "--out", "out")
_TYRO = ("tyro.py", "torch.py", "json.py", "fastvae.py", "sitecustomize.py")
_LOADER = [*train("../x.npy", "--image-size", "16", "--loader", "torch", "--workers", "2")]
CASES = [
    Case(id="W01", what="train in a folder of modules", build=partial(_planted, _TYRO, train("digits")),
         expect="right", fresh=True),
    Case(id="W02", what="--nproc 2 in a folder of modules", build=partial(_planted, _TYRO, train("digits", *_TWO)),
         expect="right", fresh=True, seconds=40),
    Case(id="W03", what="--max-restarts 1 in a folder of modules", expect="right", fresh=True, seconds=40,
         build=partial(_planted, _TYRO, train("digits", *_RESTARTS))),
    Case(id="W04", what="--loader torch --workers 2 in a folder of modules", expect="right", fresh=True, seconds=40,
         build=partial(_planted, ("numpy.py", "torch.py", "signal.py"), _LOADER)),
    Case(id="NET1", what="a pickle in the rendezvous of --nproc 2", expect="either", during=_intrude,
         build=lambda _: [*TRAIN, *_TWO, "--epochs", "100000", "--time-budget", "25"], fresh=True, seconds=90),
    Case(id="NET2", what="addresses that --nproc 2 listens on", build=lambda _: [*TRAIN, *_TWO, *_LONG],
         expect="right", during=_note_sockets, check=_only_here, wrong="listening", fresh=True, seconds=60),
    Case(id="NET3", what="addresses that --max-restarts 1 listens on", build=lambda _: [*TRAIN, *_RESTARTS, *_LONG],
         expect="right", during=_note_sockets, check=_only_here, wrong="listening", fresh=True, seconds=60),
    # torchrun's store is not ours to fix: its addresses are only reported.
    Case(id="NET4", what="addresses that torchrun's agent listens on", expect="right", during=_note_sockets,
         build=lambda _: ["python", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m",
                          "fastvae.train", *TRAIN[2:], *_LONG], fresh=True, seconds=60),
    Case(id="Z01", what="kill -9 of a data worker", build=_workers, during=_kill_worker, expect="either", fresh=True,
         seconds=60),
    Case(id="Z02", what="npy of 1.3 GB cut while it trains", build=_large, during=partial(_cut, "x.npy")),
    Case(id="Z03", what="cache images.bin cut while it trains", build=_cached,
         during=partial(_cut, "kept/train-*/images.bin")),
    Case(id="OPS4", what="gradient of laplace_nll at NaN: fused and reference", build=lambda _: python(_GRADIENT),
         expect="right", check=_is_alike),
]  # fmt: skip
