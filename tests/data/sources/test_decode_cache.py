"""Decoded images on the disk: made once and whole or not at all, checked, and every refusal."""

import errno
import fcntl
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
import warnings
from pathlib import Path

import pytest
import torch
from caches import Failing, Made, content, opened, record
from hypothesis import given, settings
from hypothesis import strategies as st

from fastvae.data.sources import decode_cache
from fastvae.utils.errors import InputError


@settings(deadline=None, max_examples=25)
@given(
    shape=st.tuples(st.integers(1, 200), st.sampled_from([1, 3]), st.integers(1, 9), st.integers(1, 9)),
    workers=st.integers(1, 4),
    chunk=st.integers(1000, 1 << 14),
    part=st.tuples(st.integers(1, 70), st.integers(1, 3000)),
)
def test_holds_what_the_source_has(tmp_path_factory, shape, workers, chunk, part):
    folder = tmp_path_factory.mktemp("cache") / "images"
    source = Made(shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode_cache, "_CHUNK", chunk)
        patch.setattr(decode_cache, "_PART", part)
        for _ in range(2):
            images = opened(source, folder, workers=workers)
            assert torch.equal(content(images), source.images)
            assert images.shape == shape
    assert source.reads == len(source)
    sums = json.loads((folder / "cache.json").read_text())["xxh3_128"]
    assert len(sums) == -(-source.images.numel() // chunk)


def test_keeps_pixels_with_channels_last(made):
    folder, source = made
    assert (folder / "images.bin").read_bytes() == source.images.permute(0, 2, 3, 1).contiguous().numpy().tobytes()
    assert {path.name for path in folder.iterdir()} == {"images.bin", "cache.json", ".lock"}


def test_draws_a_bar(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    opened(Made(), tmp_path, show=True)
    shown = capsys.readouterr()
    assert "decoding" in shown.err
    assert "images/s" in shown.err
    assert "checking" in shown.err
    assert not shown.out


def test_a_quiet_one_draws_none(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    opened(Made(), tmp_path)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("error", [InputError("10.png: cannot be decoded"), KeyboardInterrupt(), MemoryError()])
def test_what_stops_the_making_leaves_nothing(tmp_path, error):
    with pytest.raises(type(error)) as caught:
        opened(Failing(error), tmp_path)
    assert caught.value is error
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    source = Made((200, 3, 5, 4))
    assert torch.equal(content(opened(source, tmp_path)), source.images)


def test_reads_no_more_once_it_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(decode_cache, "_PART", (1, 1))
    source = Made((200, 1, 2, 2), pause=0.001)
    monkeypatch.setattr(
        decode_cache._Sums, "add", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error"))
    )
    with pytest.raises(InputError, match="Input/output error"):
        opened(source, tmp_path)
    assert source.reads <= 5


@pytest.mark.parametrize("name", ["images.bin", "cache.json"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up(tmp_path, refuses, monkeypatch, name, number):
    replace = os.replace

    def full(old, new):
        if Path(new).name == name:
            raise OSError(number, os.strerror(number))
        replace(old, new)

    monkeypatch.setattr(os, "replace", full)
    source = Made()
    with refuses(tmp_path, os.strerror(number), "choose another --cache"):
        opened(source, tmp_path)
    assert not (tmp_path / "cache.json").exists()
    monkeypatch.undo()
    assert torch.equal(content(opened(source, tmp_path)), source.images)


def test_refuses_a_disk_without_room(tmp_path, refuses, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 10**12, 599))
    with refuses(tmp_path, "0.00 GB free", "10 decoded images need 0.00 GB", "choose another --cache"):
        opened(Made(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 10**12, 600))
    opened(Made(), tmp_path)


def test_what_a_killed_process_left_is_made_anew(tmp_path):
    for name in ("images.bin.partial", "images.bin", "cache.json.partial"):
        (tmp_path / name).write_bytes(b"half of it")
    source = Made()
    assert torch.equal(content(opened(source, tmp_path)), source.images)
    assert not list(tmp_path.glob("*.partial"))


def refusing(monkeypatch, number, names):
    """Have the disk refuse to write some files, as it would anybody but root."""
    original = os.open

    def opening(path, flags, *arguments, **keywords):
        if Path(os.fsdecode(path)).name in names and flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(number, os.strerror(number))
        return original(path, flags, *arguments, **keywords)

    monkeypatch.setattr(os, "open", opening)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_folder_that_may_only_be_read(made, refuses, monkeypatch, tmp_path, number):
    folder, source = made
    record().unlink()
    refusing(monkeypatch, number, (".lock", "images.bin.partial"))
    assert torch.equal(content(opened(source, folder)), source.images)
    with refuses(tmp_path / "new", os.strerror(number), "choose another --cache"):
        opened(source, tmp_path / "new")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_a_disk_without_locks(made, refuses, monkeypatch, tmp_path, number):
    folder, source = made

    def no_locks(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert torch.equal(content(opened(source, folder)), source.images)
    with refuses(tmp_path / "new", os.strerror(number), "choose another --cache"):
        opened(source, tmp_path / "new")


def test_one_makes_it_and_the_others_wait(tmp_path, capsys):
    sources = [Made(pause=0.05) for _ in range(4)]
    found = [None] * 4

    def run(place):
        found[place] = content(opened(sources[place], tmp_path, show=True))

    threads = [threading.Thread(target=run, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(source.reads for source in sources) == [0, 0, 0, 10]
    assert all(torch.equal(images, sources[0].images) for images in found)
    assert f"waiting for the process that makes {tmp_path}" in capsys.readouterr().err.replace("\n", "")


def make_for_ever(folder):
    opened(Made((1000, 3, 5, 4), pause=60), folder)


def test_another_one_makes_it_where_the_maker_is_killed(tmp_path):
    maker = multiprocessing.get_context("fork").Process(target=make_for_ever, args=(tmp_path,))
    with warnings.catch_warnings():  # of a fork with threads, from Python 3.12 on
        warnings.simplefilter("ignore", DeprecationWarning)
        maker.start()
    while not (tmp_path / "images.bin.partial").exists():
        assert maker.is_alive()
        time.sleep(0.005)
    source = Made()
    found = []
    waiting = threading.Thread(target=lambda: found.append(content(opened(source, tmp_path))))
    waiting.start()
    waiting.join(0.1)
    assert not found
    assert source.reads == 0
    os.kill(maker.pid, signal.SIGKILL)
    maker.join()
    waiting.join(20)
    assert torch.equal(found[0], source.images)
