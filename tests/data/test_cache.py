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

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastvae.data import cache
from fastvae.data.cache import cached
from fastvae.errors import InputError

KEY = {"data": "made", "images": 10}


class Made:
    """A source of random images that counts what is read of it."""

    def __init__(self, shape=(10, 3, 5, 4), pause=0.0, dtype=torch.uint8):
        self.shape, self.dtype, self.pause = shape, dtype, pause
        self.reads = 0
        self.images = torch.randint(256, shape, dtype=dtype, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.images)

    def read(self, indices):
        time.sleep(self.pause)
        self.reads += len(indices)
        return self.images[torch.tensor(indices)]


class Failing(Made):
    """One whose last image is broken."""

    def __init__(self, error, shape=(200, 3, 5, 4)):
        super().__init__(shape)
        self.error = error

    def read(self, indices):
        if len(self) - 1 in indices:
            raise self.error
        return super().read(indices)


def opened(source, folder, key=KEY, workers=2, show=False):
    return cached(source, folder, key, workers=workers, show_progress=show)


def content(images):
    return images.read(range(len(images)))


@pytest.fixture
def made(tmp_path):
    """A cache of ten images: its folder, and their source."""
    source = Made()
    opened(source, tmp_path / "images")
    return tmp_path / "images", source


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
        patch.setattr(cache, "_CHUNK", chunk)
        patch.setattr(cache, "_PART", part)
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
    assert {path.name for path in folder.iterdir()} == {"images.bin", "cache.json", "verified.json", ".lock"}


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
    monkeypatch.setattr(cache, "_PART", (1, 1))
    source = Made((200, 1, 2, 2), pause=0.001)
    monkeypatch.setattr(cache._Sums, "add", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(InputError, match="Input/output error"):
        opened(source, tmp_path)
    assert source.reads <= 5


@pytest.mark.parametrize("name", ["images.bin", "cache.json"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up(tmp_path, refuses, monkeypatch, name, number):
    sync = cache._sync

    def full(path):
        if path.name == name + ".partial":
            raise OSError(number, os.strerror(number))
        sync(path)

    monkeypatch.setattr(cache, "_sync", full)
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


def test_refuses_other_images(made, refuses):
    folder, source = made
    for key in ({**KEY, "data": "others"}, {"data": "made"}, {**KEY, "on_bad_image": "skip"}):
        with refuses(folder, "holds other images", "remove the folder", "choose another --cache"):
            opened(source, folder, key)
    with refuses("their data is 'made', not 'others'"):
        opened(source, folder, {**KEY, "data": "others"})
    with refuses("their shape is [10, 3, 5, 4], not [10, 3, 4, 5]"):
        opened(Made((10, 3, 4, 5)), folder)
    assert torch.equal(content(opened(source, folder)), source.images)


def test_refuses_floats(tmp_path, refuses):
    source = Made()
    source.dtype = torch.float32
    with refuses("uint8", "torch.float32", "leave out --cache"):
        opened(source, tmp_path / "images")
    assert not (tmp_path / "images").exists()


def test_refuses_a_folder_that_is_none(tmp_path, refuses):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "images"):
        with refuses(folder, "cannot make or open the cache", "choose another --cache"):
            opened(Made(), folder)


@pytest.mark.parametrize("change", [b"", b"0"])
def test_refuses_a_file_of_another_size(made, refuses, change):
    folder, source = made
    data = (folder / "images.bin").read_bytes()
    (folder / "images.bin").write_bytes(data[:-1] if not change else data + change)
    with refuses(folder / "images.bin", "not 600", "remove the folder"):
        opened(source, folder)


def test_refuses_a_lost_file(made, refuses):
    folder, source = made
    (folder / "images.bin").unlink()
    with refuses(folder / "images.bin", "No such file"):
        opened(source, folder)


@settings(deadline=None, max_examples=30)
@given(place=st.integers(0, 599), bit=st.integers(0, 7))
def test_finds_any_flipped_bit(tmp_path_factory, place, bit):
    folder = tmp_path_factory.mktemp("cache")
    source = Made()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "_CHUNK", 256)
        opened(source, folder)
        data = bytearray((folder / "images.bin").read_bytes())
        data[place] ^= 1 << bit
        (folder / "images.bin").write_bytes(data)
        start = place // 256 * 256
        for _ in range(2):
            with pytest.raises(InputError, match=rf"images\.bin is damaged, .* the 256 bytes from {start} on: remove"):
                opened(source, folder)


@pytest.mark.parametrize("sums", [[], ["0" * 32], ["0" * 32] * 2, [1], [None, {}]])
def test_refuses_other_checksums(made, refuses, sums):
    folder, source = made
    about = json.loads((folder / "cache.json").read_text())
    (folder / "cache.json").write_text(json.dumps(about | {"xxh3_128": sums}))
    (folder / "verified.json").unlink()
    with refuses(folder / "images.bin", "is damaged"):
        opened(source, folder)


def test_refuses_one_checksum_too_many(made, refuses):
    folder, source = made
    about = json.loads((folder / "cache.json").read_text())
    about["xxh3_128"].append("0" * 32)
    (folder / "cache.json").write_text(json.dumps(about))
    (folder / "verified.json").unlink()
    with refuses(folder / "images.bin", "is damaged"):
        opened(source, folder)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), name=st.sampled_from(["cache.json", "verified.json"]))
def test_any_damaged_description_is_refused_or_harmless(tmp_path_factory, data, name):
    folder = tmp_path_factory.mktemp("cache")
    source = Made()
    opened(source, folder)
    text = bytearray((folder / name).read_bytes())
    place = data.draw(st.integers(0, len(text) - 1))
    if data.draw(st.booleans()):
        text[place] = data.draw(st.integers(0, 255))
    else:
        del text[place:]
    (folder / name).write_bytes(text)
    message = ""
    try:
        assert torch.equal(content(opened(source, folder)), source.images)
    except InputError as error:
        message = str(error)
    if message:
        assert name == "cache.json"
        assert str(folder) in message
        assert "\n" not in message


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"key": 1}', "[" * 100_000, "\udcff"])
def test_refuses_what_describes_no_cache(made, refuses, text):
    folder, source = made
    (folder / "cache.json").write_bytes(text.encode(errors="surrogateescape"))
    with refuses(folder / "cache.json", "describes no cache", "remove the folder"):
        opened(source, folder)


def test_refuses_another_format(made, refuses):
    folder, source = made
    about = json.loads((folder / "cache.json").read_text())
    (folder / "cache.json").write_text(json.dumps(about | {"format": 2}))
    with refuses(folder / "cache.json", "has format 2, not 1", "remove the folder"):
        opened(source, folder)


def test_verifies_when_the_file_has_changed_only(made, monkeypatch):
    folder, source = made
    digest = cache.xxhash.xxh3_128_hexdigest
    chunks = []
    monkeypatch.setattr(cache.xxhash, "xxh3_128_hexdigest", lambda chunk: chunks.append(len(chunk)) or digest(chunk))
    opened(source, folder)
    assert not chunks
    os.utime(folder / "images.bin")
    for _ in range(2):
        opened(source, folder)
        assert chunks == [600]
    shutil.copy2(folder / "images.bin", folder / "copy")  # with the same times
    (folder / "copy").replace(folder / "images.bin")
    opened(source, folder)
    assert chunks == [600, 600]


def refusing(monkeypatch, number, names):
    """Have the disk refuse to write some files, as it would anybody but root."""
    original = cache.Path.open

    def opening(path, mode="r", *arguments, **keywords):
        if path.name in names and mode[0] in "aw":
            raise OSError(number, os.strerror(number))
        return original(path, mode, *arguments, **keywords)

    monkeypatch.setattr("pathlib.Path.open", opening)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_folder_that_may_only_be_read(made, refuses, monkeypatch, tmp_path, number):
    folder, source = made
    (folder / "verified.json").unlink()
    refusing(monkeypatch, number, (".lock", "verified.json.partial", "images.bin.partial"))
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
