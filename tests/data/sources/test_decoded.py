"""Pictures of all kinds become images of one size; broken ones are named."""

import numpy as np
import pytest
import torch
from pictures import Made, encoded, numbered, numbers
from PIL import Image

from fastvae.data.sources.decoded import DecodedSource, begins_as_picture
from fastvae.data.sources.resize import ResizedSource
from fastvae.data.sources.tensor import TensorSource, read_all

COLOURS = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)


def picture():
    return Image.fromarray(COLOURS)


def read(content, size=12, channels=3):
    return DecodedSource(Made([content]), size, channels).read([0])[0]


def test_the_middle_square_of_what_needs_no_resizing():
    expected = torch.from_numpy(COLOURS[:, 2:14]).permute(2, 0, 1)
    assert torch.equal(read(encoded(picture())), expected)
    assert torch.equal(read(encoded(picture(), "WEBP", lossless=True)), expected)
    turned = np.ascontiguousarray(np.rot90(COLOURS))
    assert torch.equal(read(encoded(Image.fromarray(turned))), torch.from_numpy(turned[2:14]).permute(2, 0, 1))


def test_orientation_is_heeded():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(COLOURS)))
    assert torch.equal(read(encoded(turned, exif=exif)), read(encoded(picture())))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "CMYK"])
def test_other_colours(mode):
    content = encoded(picture().convert(mode), "TIFF" if mode == "CMYK" else "PNG")
    if mode == "CMYK":
        content = encoded(picture().convert(mode), "JPEG", quality=100)
    for channels, name in ((3, "RGB"), (1, "L")):
        image = read(content, channels=channels)
        assert image.shape == (channels, 12, 12)
        if mode != "CMYK":
            expected = torch.from_numpy(np.array(picture().convert(mode).convert(name))[:, 2:14]).view(12, 12, channels)
            assert torch.equal(image.permute(1, 2, 0), expected)


def test_sixteen_bits_become_eight():
    deep = np.arange(144, dtype=np.uint16).reshape(12, 12) * 450
    assert torch.equal(
        read(encoded(Image.fromarray(deep)), channels=1)[0], torch.from_numpy((deep >> 8).astype(np.uint8))
    )


def test_what_is_transparent_keeps_its_colour():
    flat = picture().convert("P")
    content = encoded(flat, transparency=bytes(range(256)))
    assert torch.equal(read(content), read(encoded(flat)))


def test_images_lie_in_channels_last_and_do_not_depend_on_their_neighbours():
    made = Made([encoded(picture().resize((20 + i, 15))) for i in range(6)])
    pictures = DecodedSource(made, 8)
    together = pictures.read(range(6))
    assert together.is_contiguous(memory_format=torch.channels_last)
    assert pictures.shape == together.shape == (6, 3, 8, 8)
    assert torch.equal(pictures.read([4, 1, 4]), together[[4, 1, 4]])
    assert pictures.read([]).shape == (0, 3, 8, 8)
    assert torch.equal(read_all(pictures), together)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is not a JPEG, PNG or WebP"),
        (b"plain text", "it is not a JPEG, PNG or WebP"),
        (encoded(picture(), "GIF"), "it is not a JPEG, PNG or WebP"),
        (encoded(picture(), "JPEG")[:300], "made/0"),
        (encoded(picture())[:200], "truncated"),
        (encoded(picture(), "WEBP")[:100], "made/0"),
        (None, "Permission denied"),
    ],
)
def test_a_broken_one_is_named(refuses, content, words):
    with refuses("made/0: cannot be decoded", words, "repair or remove it, or use --on-bad-image skip"):
        read(content)


def test_skipped_ones_are_told_once_and_replaced_by_the_next(caplog):
    made = Made([encoded(Image.new("RGB", (9, 9), (index, 0, 0))) for index in range(6)])
    made.contents[2] = made.contents[3] = made.contents[5] = b"x"
    pictures = DecodedSource(made, 9, on_bad="skip")
    for _ in range(2):
        assert pictures.read(range(6))[:, 0, 0, 0].tolist() == [0, 1, 4, 4, 4, 0]
    told = (
        "skipped, with the next whole picture in its place: made/{}: cannot be decoded (it is not a JPEG, PNG or WebP)"
    )
    assert [record.getMessage() for record in caplog.records] == [told.format(number) for number in (2, 3, 5)]


def test_of_several_threads_one_tells(caplog):
    made = numbered(600)
    for index in range(0, 600, 3):
        made.contents[index] = b"x"
    images = read_all(DecodedSource(made, 8, on_bad="skip"))
    assert numbers(images) == [index + (index % 3 == 0) for index in range(600)]
    told = [record.getMessage().split(":")[1] for record in caplog.records]
    assert len(told) == len(set(told)) == 200


def test_what_is_read_is_known_by_its_beginning():
    for form in ("JPEG", "PNG", "WEBP"):
        assert begins_as_picture(encoded(picture(), form))
    for content in (b"", b"RIFF", b"plain text", encoded(picture(), "GIF"), encoded(picture(), "BMP")):
        assert not begins_as_picture(content)


def test_there_may_be_none_that_is_whole(refuses):
    with refuses("none of 3 pictures can be decoded", "made/"):
        DecodedSource(Made([b"x"] * 3), 9, on_bad="skip").read([1])


def test_sizes_and_channels_are_checked(refuses):
    with refuses("at least 1 pixel", "0"):
        DecodedSource(Made([]), 0)
    with refuses("3 channels (RGB) or 1 (grey)", "2"):
        DecodedSource(Made([]), 9, 2)


def test_arrays_are_cut_and_resized_alike():
    images = torch.from_numpy(COLOURS).permute(2, 0, 1)[None]
    small = ResizedSource(TensorSource(images), 5)
    assert small.shape == (1, 3, 5, 5)
    assert torch.equal(small.read([0])[0], read(encoded(picture()), 5))
    floats = ResizedSource(TensorSource(images.float() / 255), 5).read([0])
    assert (floats - small.read([0]) / 255).abs().max() < 1 / 255


def test_a_size_that_memory_cannot_hold_is_refused(refuses):
    with refuses("1000000 x 1000000", "GB of memory", "--image-size"):
        DecodedSource(numbered(3), 10**6)
