"""What a cache on the disk is refused for: other images, other sizes, flipped bits, damaged descriptions."""

import json
import os
import shutil

import pytest
import torch
from caches import KEY, Made, content, opened, record
from hypothesis import given, settings
from hypothesis import strategies as st

from fastvae.data.sources import decode_cache
from fastvae.utils.errors import InputError
from fastvae.utils.machine import cache_folder


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
        patch.setattr(decode_cache, "_CHUNK", 256)
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
    record().unlink()
    with refuses(folder / "images.bin", "is damaged"):
        opened(source, folder)


def test_refuses_one_checksum_too_many(made, refuses):
    folder, source = made
    about = json.loads((folder / "cache.json").read_text())
    about["xxh3_128"].append("0" * 32)
    (folder / "cache.json").write_text(json.dumps(about))
    record().unlink()
    with refuses(folder / "images.bin", "is damaged"):
        opened(source, folder)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), name=st.sampled_from(["cache.json", "record"]))
def test_any_damaged_description_is_refused_or_harmless(tmp_path_factory, data, name):
    folder = tmp_path_factory.mktemp("cache")
    source = Made()
    shutil.rmtree(cache_folder(), ignore_errors=True)
    opened(source, folder)
    file = record() if name == "record" else folder / name
    text = bytearray(file.read_bytes())
    place = data.draw(st.integers(0, len(text) - 1))
    if data.draw(st.booleans()):
        text[place] = data.draw(st.integers(0, 255))
    else:
        del text[place:]
    file.write_bytes(text)
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
    digest = decode_cache.xxhash.xxh3_128_hexdigest
    chunks = []
    monkeypatch.setattr(
        decode_cache.xxhash, "xxh3_128_hexdigest", lambda chunk: chunks.append(len(chunk)) or digest(chunk)
    )
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


def test_who_may_write_into_the_folder_cannot_vouch_for_the_pixels(made, refuses):
    folder, source = made
    before = record().read_text()
    (folder / "images.bin").write_bytes(bytes(600))
    state = decode_cache._state(folder / "images.bin")
    (folder / "verified.json").write_text(json.dumps(state))
    with refuses(folder / "images.bin", "is damaged"):
        opened(source, folder)
    assert record().read_text() == before
