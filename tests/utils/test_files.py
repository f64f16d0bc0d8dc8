"""Reading takes regular files only; writing follows no link and leaves all or nothing."""

import ast
import os
import socket
from pathlib import Path

import pytest

from fastvae.utils import files

PACKAGE = Path(files.__file__).parents[1]
# Files that open files without fastvae.utils.files, and the reason.
OWN_OPENERS = {
    "fastvae/utils/files.py": "it is the opener",
    "fastvae/data/datasets/cifar.py": "numpy.fromfile of a file that open_regular opened",
    "fastvae/utils/machine.py": "/sys and /proc, of the kernel",
    "fastvae/train/distributed/shm_all_reduce.py": "/proc, and a file that it has just made in /dev/shm",
    "fastvae/train/distributed/world.py": "/proc",
    "fastvae/train/report/run_config.py": "/proc",
    "fastvae/parity/processes.py": "a private temporary folder",
}


@pytest.fixture
def odd(tmp_path: Path) -> dict[str, Path]:
    """Paths that are not regular files; reading some of them would block forever."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    return {name: tmp_path / name for name in ("pipe", "folder", "link", "zero")}


@pytest.mark.parametrize("name", ["pipe", "folder", "link", "zero"])
def test_opens_regular_files_only(odd: dict[str, Path], name: str) -> None:
    for opening in (files.open_regular, files.check_regular, files.read_json, lambda path: files.read_bytes(path, 9)):
        with pytest.raises(OSError, match="not a regular file"):
            opening(odd[name])


def test_a_socket_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        with pytest.raises(OSError, match="No such device"):
            files.check_regular(tmp_path / "s")


def test_reads_no_more_than_the_limit(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    assert files.read_bytes(tmp_path / "f", 5) == b"12345"
    with pytest.raises(OSError, match="has 5 bytes, more than the 4"):
        files.read_bytes(tmp_path / "f", 4)


@pytest.mark.parametrize("text", ["[" * 200_000, "{", b"\xff\xfe\x00", '{"a": '])
def test_bad_json_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        files.parse_json(text)


@pytest.mark.parametrize("linked", ["f", "f.partial"])
def test_writing_follows_no_link(tmp_path: Path, linked: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / linked).symlink_to(victim)
    files.write_text(tmp_path / "f", "new")
    assert victim.read_text() == "precious"
    assert (tmp_path / "f").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "victim"]


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old")

    def interrupted() -> None:
        with files.atomic_write(tmp_path / "f") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / "f").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize("how", ["symbolic", "hard", "pipe"])
def test_in_place_only_where_the_file_is_its_own(tmp_path: Path, how: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    if how == "pipe":
        os.mkfifo(tmp_path / "f")
    else:
        (tmp_path / "f").symlink_to(victim) if how == "symbolic" else os.link(victim, tmp_path / "f")
    with pytest.raises(OSError, match=r"is a link|second name|named pipe"):
        files.open_in_place(tmp_path / "f", os.O_RDWR | os.O_CREAT, "r+")
    assert victim.read_text() == "precious"


def test_a_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "broken").symlink_to("nowhere")
    assert files.real_folder(tmp_path / "real") == files.real_folder(tmp_path / "new").with_name("real")
    for name in ("link", "broken"):
        with pytest.raises(NotADirectoryError, match="is a link"):
            files.real_folder(tmp_path / name)


def test_a_folder_of_ones_own(tmp_path: Path) -> None:
    made = files.own_folder(tmp_path / "a" / "b")
    assert made.stat().st_mode & 0o777 == 0o700
    made.chmod(0o755)
    assert files.own_folder(made) == made
    for mode in (0o775, 0o757, 0o1777):
        made.chmod(mode)
        with pytest.raises(PermissionError, match="written by others"):
            files.own_folder(made)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    with pytest.raises(PermissionError, match="belongs to user 65534"):
        files.own_folder(tmp_path)


def calls(path: Path) -> set[str]:
    """Return the names of all functions and methods that a file calls."""
    nodes = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return {node.id for node in nodes if isinstance(node, ast.Name)} | {
        f".{node.attr}" for node in nodes if isinstance(node, ast.Attribute)
    }


def test_nothing_else_opens_files() -> None:
    openers = {"open", ".read_text", ".read_bytes", ".write_text", ".write_bytes", ".fromfile", ".from_file"}
    found = {str(path.relative_to(PACKAGE.parent)): calls(path) & openers for path in PACKAGE.rglob("*.py")}
    assert {name: used for name, used in found.items() if used and name not in OWN_OPENERS} == {}
