"""ShardedWeights: every member by its place, in any process; what is damaged is refused."""

import gzip
import io
import multiprocessing
import pickle
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastvae.data.formats.tar import TarPictures, numbered, read_tars
from fastvae.utils.errors import InputError


def pack(path, members, form=tarfile.PAX_FORMAT):
    with tarfile.open(path, "w", format=form) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def pictures(first, count):
    return {f"{number:04}.jpg": b"%d" % number * (1 + number * 97) for number in range(first, first + count)}


def read(part):
    return [part.encoded(index) for index in range(len(part))]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_reads_every_picture_of_every_shard(tmp_path, form):
    long = f"{'folder/' * 12}{'x' * 60}.png"
    shards = [pictures(0, 7), {long: b"long", "a/Ü.WEBP": b"", "b.JPEG": b"b" * 512}, {"a.json": b"{}", "c.cls": b"1"}]
    paths = [pack(tmp_path / f"{number}.tar", members, form) for number, members in enumerate(shards)]
    tars = TarPictures(paths)
    assert read(tars) == [*shards[0].values(), *shards[1].values()]
    assert tars.name(3) == f"{paths[0]}/0003.jpg"
    assert tars.name(7) == f"{paths[1]}/{long}"


def test_leaves_out_what_is_no_picture(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind in (
            ("folder.jpg", tarfile.DIRTYPE),
            ("link.jpg", tarfile.SYMTYPE),
            ("x/._a.jpg", tarfile.REGTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type = kind
            archive.addfile(info)
    with refuses_no_picture(path):
        TarPictures([path])


def refuses_no_picture(path):
    return pytest.raises(InputError, match=f"{path}: holds no picture: give archives with .jpg")


def test_every_tenth_is_for_testing(tmp_path):
    paths = [pack(tmp_path / "a.tar", pictures(0, 8)), pack(tmp_path / "b.tar", pictures(8, 5))]
    train, test = read_tars(paths, "x")
    every = list(pictures(0, 13).values())
    assert read(test) == every[::10]
    assert read(train) == [content for place, content in enumerate(every) if place % 10]


@pytest.mark.parametrize("word", ["test", "val", "valid", "DEV", "Validation"])
def test_names_of_shards_can_be_the_splits(tmp_path, word, caplog, refuses):
    train_path = pack(tmp_path / "latest-Train-0.tar", pictures(0, 3))
    test_path = pack(tmp_path / f"latest_{word}0.tar", pictures(3, 1))
    train, test = read_tars([test_path, train_path], "x")
    assert (len(train), len(test)) == (3, 1)
    train, test = read_tars([pack(tmp_path / "rest.tar", pictures(4, 8)), test_path, train_path], "x")
    assert (len(train), len(test)) == (3, 1)
    assert caplog.messages == ["x: 1 of its archives are left out, in neither split, rest.tar for one"]
    with refuses("x", "an archive named", "none named train"):
        read_tars([tmp_path / "rest.tar", test_path], "x")


def read_one(tars):
    return tars.encoded(2)


def test_another_process_can_read_them(tmp_path):
    tars = TarPictures([pack(tmp_path / "a.tar", pictures(0, 5))])
    assert pickle.loads(pickle.dumps(tars)).encoded(2) == tars.encoded(2)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(read_one, [tars]) == tars.encoded(2)


def test_patterns_are_numbers(tmp_path):
    for name in ("x-008.tar", "x-009.tar", "x-010.tar", "y8-1.tar", "y8-2.tar", "y9-1.tar", "y9-2.tar"):
        (tmp_path / name).touch()
    assert [path.name for path in numbered(f"{tmp_path}/x-{{008..010}}.tar")] == ["x-008.tar", "x-009.tar", "x-010.tar"]
    assert [path.name for path in numbered(f"{tmp_path}/y{{8..9}}-{{1..2}}.tar")] == [
        "y8-1.tar", "y8-2.tar", "y9-1.tar", "y9-2.tar",
    ]  # fmt: skip


def test_refuses_patterns_without_files(tmp_path, refuses):
    (tmp_path / "x-0.tar").touch()
    with refuses(tmp_path / "x-1.tar", "no such file", "{0..99999999}"):
        list(numbered(f"{tmp_path}/x-{{0..99999999}}.tar"))
    with refuses("x-{a,b}.tar", "no range", "{000..123}"):
        list(numbered("x-{a,b}.tar"))
    with refuses("{2..1}", "counts down", "{1..2}"):
        list(numbered("x-{2..1}.tar"))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        pytest.param(lambda data: data[:2048], ["truncated or damaged at byte 2048"], id="after-a-member"),
        pytest.param(lambda data: data[:2000], ["unexpected end of data", "again"], id="inside-a-member"),
        pytest.param(lambda data: data[:2100], ["truncated or damaged at byte"], id="inside-a-header"),
        pytest.param(lambda data: data[:100], ["truncated"], id="inside-the-first-header"),
        pytest.param(lambda data: b"", ["empty"], id="empty"),
        pytest.param(lambda data: b"text" * 1000, ["not a complete tar archive"], id="text"),
        pytest.param(lambda data: data[:1024] + b"x" * 512 + data[1536:], ["damaged at byte 1024"], id="second-header"),
        pytest.param(gzip.compress, ["compressed with gzip", "unpack it"], id="gzip"),
        pytest.param(lambda data: b"\x28\xb5\x2f\xfd" + data, ["compressed with zstd"], id="zstd"),
    ],
)
def test_refuses_damaged_archives(tmp_path, refuses, damage, words):
    path = pack(tmp_path / "x.tar", {"a.jpg": b"a", "b.jpg": b"b", "c.jpg": b"c"})
    path.write_bytes(damage(path.read_bytes()))
    with refuses(path, *words):
        TarPictures([path])


@settings(max_examples=40)
@given(place=st.integers(0, 4095), value=st.integers(0, 255), cut=st.integers(0, 10240))
def test_any_damage_is_read_or_refused(tmp_path_factory, place, value, cut):
    path = pack(tmp_path_factory.getbasetemp() / "fuzzed.tar", {"a.jpg": b"a" * 600, "b.jpg": b"b", "c.jpg": b"c"})
    data = bytearray(path.read_bytes())
    data[place] = value
    path.write_bytes(data[: len(data) - cut])
    try:
        read(TarPictures([path]))
        message = str(path)
    except InputError as error:
        message = str(error)
    assert str(path) in message
    assert "\n" not in message


def test_refuses_what_is_not_there(tmp_path, refuses):
    with refuses(tmp_path / "none.tar", "No such file"):
        TarPictures([Path(tmp_path / "none.tar")])
    paths = [pack(tmp_path / f"{number}.tar", {}) for number in range(3)]
    with refuses(paths[0], "2 more archives", "no picture"):
        TarPictures(paths)


def crafted(path, **fields):
    """An archive of three pictures, whose second header has other fields: raw bytes, at their place in a header."""
    pack(path, {"a.jpg": b"a", "b.jpg": b"b", "c.jpg": b"c"}, tarfile.USTAR_FORMAT)
    data = bytearray(path.read_bytes())
    header = bytearray(data[1024:1536])
    for name, content in fields.items():
        start = {"size": 124, "type": 156}[name]
        header[start : start + len(content)] = content
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path.write_bytes(data[:1024] + header + data[1536:])
    return path


def base_256(number):
    return bytes([0x80 if number >= 0 else 0xFF]) + (number % 2**88).to_bytes(11, "big")


@pytest.mark.parametrize("size", [-512, -1, -(2**80), 2**70, 2**62, 10**6])
@pytest.mark.parametrize("kind", [b"0", b"x", b"g", b"L", b"S"])
def test_sizes_that_cannot_be_are_refused(tmp_path, refuses, size, kind):
    path = crafted(tmp_path / "x.tar", size=base_256(size), type=kind)
    with refuses(path, "at byte"):
        TarPictures([path])


@pytest.mark.parametrize(
    "records", [{"size": "1" + "0" * 30}, {"size": "-512"}, {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}]
)
def test_extended_headers_that_cannot_be_are_refused(tmp_path, refuses, records):
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("a.jpg")
        info.size, info.pax_headers = 5, records
        archive.addfile(info, io.BytesIO(b"\x89PNG\r"))
    with refuses(tmp_path / "x.tar", "at byte"):
        TarPictures([tmp_path / "x.tar"])


def test_headers_without_end_are_refused(tmp_path, refuses):
    path = tmp_path / "x.tar"
    record = b"12 path=abc\n"
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, len(record)
    path.write_bytes((header.tobuf(tarfile.USTAR_FORMAT) + record.ljust(512, b"\0")) * 2000)
    with refuses(path, "at byte"):
        TarPictures([path])
    header.size = 1 << 32
    path.write_bytes(header.tobuf(tarfile.USTAR_FORMAT))
    with path.open("r+b") as file:
        file.truncate(1 << 33)
    with refuses(path, "more than 32,768 bytes"):
        TarPictures([path])


def test_a_picture_as_large_as_none_is_an_os_error(tmp_path):
    info = tarfile.TarInfo("a.jpg")
    info.size = (256 << 20) + 1
    (tmp_path / "x.tar").write_bytes(info.tobuf())
    with (tmp_path / "x.tar").open("r+b") as file:
        file.truncate(257 << 20)
    tars = TarPictures([tmp_path / "x.tar"])
    with pytest.raises(OSError, match="of a picture"):
        tars.encoded(0)


def test_archives_one_after_another_are_read_whole(tmp_path):
    parts = [pack(tmp_path / f"{number}.tar", pictures(4 * number, 4)) for number in range(3)]
    whole = tmp_path / "whole.tar"
    whole.write_bytes(parts[0].read_bytes() + bytes(512 * 7) + parts[1].read_bytes() + parts[2].read_bytes())
    assert read(TarPictures([whole])) == list(pictures(0, 12).values())
    padded = tmp_path / "padded.tar"
    padded.write_bytes(parts[0].read_bytes() + bytes(3 << 20))
    assert read(TarPictures([padded])) == list(pictures(0, 4).values())
    for rest in (b"no archive" * 100, parts[1].read_bytes()[:700]):
        (tmp_path / "bad.tar").write_bytes(parts[0].read_bytes() + rest)
        with pytest.raises(InputError, match=r"bad\.tar: is .*(damaged|not a complete tar archive)"):
            TarPictures([tmp_path / "bad.tar"])


def test_folders_in_an_archive_can_be_the_splits(tmp_path, refuses):
    members = {f"set/{split}/{number}.jpg": b"%d" % number for split in ("Train", "validation") for number in range(3)}
    train, test = read_tars([pack(tmp_path / "x.tar", members)], "x")
    assert [test.name(index) for index in range(3)] == [f"{tmp_path}/x.tar/set/validation/{n}.jpg" for n in range(3)]
    assert len(train) == 3
    with refuses("x", "a folder named validation", "none named train"):
        read_tars([pack(tmp_path / "y.tar", {"a/1.jpg": b"", "validation/2.jpg": b""})], "x")
