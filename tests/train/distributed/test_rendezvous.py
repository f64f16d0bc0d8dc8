"""How processes of one machine meet: by a file of this user alone, over loopback, and with nothing of the folder they
are started in."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fastvae.train.distributed import rendezvous
from fastvae.train.distributed.rendezvous import OneMachine, join, private_folder
from fastvae.utils.errors import InputError

ROOT = Path(__file__).parents[3]
SHADOWS = ("tyro", "numpy", "json", "multiprocessing", "typing_extensions")


def family(root: int) -> set[int]:
    """A process, and all that it started."""
    found = {root}
    while True:
        parents = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
        more = found | {process for process, parent in parents.items() if parent in found}
        if more == found:
            return found
        found = more


def listening(processes: set[int]) -> set[str]:
    """The addresses, in hexadecimal, on which some processes accept connections."""
    sockets = set()
    for process in processes:
        for link in Path(f"/proc/{process}/fd").glob("*"):
            try:
                sockets.update(re.findall(r"socket:\[(\d+)\]", os.readlink(link)))
            except OSError:
                continue
    lines = [line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()]
    return {line[1].partition(":")[0] for line in lines if line[3] == "0A" and line[9] in sockets}


@pytest.mark.parametrize(
    ("flags", "expected"),
    [(["--nproc", "2"], {"0100007F"}), (["--max-restarts", "1"], set())],
    ids=["nproc", "restarts"],
)
def test_listens_on_loopback_or_nowhere_and_imports_nothing_from_the_current_folder(tmp_path, flags, expected):
    for name in SHADOWS:
        (tmp_path / f"{name}.py").write_text(f"open('RAN-{name}', 'w')\nraise SystemExit(9)\n")
    script = Path(sys.executable).parent / "fastvae"
    command = [script, "train", *flags, "--max-steps", "400", "--epochs", "100", "--no-autotune", "--device", "cpu"]
    seen: set[str] = set()
    with subprocess.Popen([*command, "--out", "run"], cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            seen |= listening(family(process.pid))
            time.sleep(0.02)
    assert process.returncode == 0
    assert seen == expected
    assert not list(tmp_path.glob("RAN*"))


def test_an_agent_alone_gets_a_new_store_each_time(tmp_path):
    handler = OneMachine("id", tmp_path)
    first, second = handler.next_rendezvous(), handler.next_rendezvous()
    assert (first.rank, first.world_size, handler.num_nodes_waiting()) == (0, 1, 0)
    first.store.set("key", "first")
    assert not second.store.check(["key"])


def test_a_folder_of_another_run_is_left_alone(monkeypatch):
    """As in a torchrun that a worker starts: its environment has the folder, but another run's."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "inner")
    monkeypatch.setenv("MASTER_ADDR", "no.such.host.invalid")
    monkeypatch.setenv("MASTER_PORT", "1")
    with (
        private_folder("outer"),
        pytest.raises(InputError, match=r"others at no\.such\.host\.invalid:1"),
    ):
        join(0, 2, one_machine=False)
    monkeypatch.delenv(rendezvous._FOLDER)


def test_a_folder_that_others_can_write_to_is_refused(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "id")
    with private_folder("id") as folder:
        folder.chmod(0o777)
        with pytest.raises(InputError, match="can be written by others"):
            join(0, 2, one_machine=False)
    monkeypatch.delenv(rendezvous._FOLDER)


def test_a_port_that_is_taken_is_one_line(monkeypatch):
    import socket  # noqa: PLC0415

    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", str(server.getsockname()[1]))
        monkeypatch.setenv("RANK", "0")
        monkeypatch.setenv("WORLD_SIZE", "2")
        with pytest.raises(InputError, match="process 0 of 2 cannot meet the others"):
            join(0, 2, one_machine=False)


def test_nothing_that_is_received_is_unpickled():
    pickling = re.compile(
        r"\b(dist|distributed)\.\w*_object(_list)?\(|import pickle|torch\.load\((?!.*weights_only=True)"
    )
    sources = {path.name: path.read_text() for path in (ROOT / "fastvae").rglob("*.py")}
    assert [name for name, source in sources.items() if pickling.search(source)] == []
