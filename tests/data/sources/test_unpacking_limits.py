"""What no file of a stranger may do: be a pipe, be huge, unpack to anything."""

import os

import pytest

from fastvae.data.sources import unpacking_limits
from fastvae.data.sources.unpacking_limits import as_input_error, check_unpacked, read_picture
from fastvae.utils.errors import InputError


def test_a_picture_is_a_regular_file_of_no_great_size(tmp_path):
    (tmp_path / "a.png").write_bytes(b"abc" * 1000)
    (tmp_path / "link.png").symlink_to("a.png")
    assert read_picture(os.fsencode(tmp_path / "link.png")) == b"abc" * 1000
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "to-pipe.png").symlink_to("pipe")
    (tmp_path / "endless.png").symlink_to("/dev/zero")
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(unpacking_limits.PICTURE_LIMIT + 1)
    for name, words in (("to-pipe", "named pipe"), ("endless", "a device"), ("huge", "268,435,457 bytes, more than")):
        with pytest.raises(OSError, match=words):
            read_picture(os.fsencode(tmp_path / f"{name}.png"))


def test_whatever_is_raised_is_one_line():
    for error in (RecursionError("deep"), KeyError("a\nb"), OverflowError()):
        with pytest.raises(InputError, match=r"^x: .*$") as caught, as_input_error(lambda why: f"x: {why}"):
            raise error
        assert caught.value.__cause__ is error
    for error in (InputError("mine"), MemoryError(), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, as_input_error(lambda why: f"x: {why}"):
            raise error
        assert caught.value is error


def test_bombs_are_refused(monkeypatch):
    monkeypatch.setattr("fastvae.utils.machine.memory", lambda: 1 << 34)
    check_unpacked("dSprites", 26_000_000, 3_000_000_000)
    check_unpacked("small", 1, 256 << 20)
    with pytest.raises(InputError, match=r"^x: .* from 1,000 bytes to 268,435,457.*FASTVAE_MAX_UNPACKED=1G"):
        check_unpacked("x", 1000, (256 << 20) + 1)
    with pytest.raises(InputError, match="GB of memory"):
        check_unpacked("x", 1 << 33, 1 << 35)


@pytest.mark.parametrize(
    ("given", "size"), [("300000000", 300_000_000), ("1K", 1 << 10), ("2M", 2 << 20), ("3G", 3 << 30)]
)
def test_the_limit_can_be_set(monkeypatch, given, size):
    monkeypatch.setenv("FASTVAE_MAX_UNPACKED", given)
    check_unpacked("x", 1, size)
    with pytest.raises(InputError, match=f"{size:,} that it may"):
        check_unpacked("x", 1, size + 1)


@pytest.mark.parametrize("given", ["lots", "-1", "1T", "4 G", "\n4", "1e9"])
def test_a_limit_that_is_no_number_is_refused(monkeypatch, given):
    monkeypatch.setenv("FASTVAE_MAX_UNPACKED", given)
    with pytest.raises(InputError, match=r"^FASTVAE_MAX_UNPACKED is .*: write 4G, say$"):
        check_unpacked("x", 1, 1)
