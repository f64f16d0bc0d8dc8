"""The loader by DALI: what it does with pictures of all kinds, and where it fails."""

import sys
import threading
import time

import numpy as np
import pytest
import torch
from pictures import Made, encoded, numbered, numbers, photographs
from PIL import Image

from fastvae.data.loaders.dali import MISSING, DaliLoader, _Reader
from fastvae.data.sources.decoded import DecodedSource


@pytest.fixture
def dali():
    pytest.importorskip("nvidia.dali.fn")
    return DaliLoader


def picture():
    coarse = np.random.default_rng(1).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((120, 90), Image.Resampling.BICUBIC)


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


KINDS = {
    "grey": encoded(picture().convert("L"), "JPEG"),
    "grey and transparent": encoded(picture().convert("LA")),
    "of a palette": encoded(picture().convert("P")),
    "transparent": encoded(picture().convert("RGBA")),
    "for print": encoded(picture().convert("CMYK"), "JPEG"),
    "progressive": encoded(picture(), "JPEG", progressive=True),
    "WebP": encoded(picture(), "WEBP"),
    "of sixteen bits": encoded(Image.fromarray(np.asarray(picture().convert("L")).astype(np.uint16) * 257)),
    **{f"turned {way}": encoded(picture(), "JPEG", exif=turned(way)) for way in range(2, 9)},
    "a turned PNG": encoded(picture(), exif=turned(6)),
}


# Levels by which DALI may differ, by channels; on the CPU none where it needs no grey.
MOST = {3: 4, 1: 8} if torch.cuda.is_available() else {3: 0, 1: 4}


def test_without_dali_it_says_what_to_install(monkeypatch, refuses):
    monkeypatch.setitem(sys.modules, "nvidia.dali.fn", None)
    with refuses(MISSING, "pip install fastvae[dali]"):
        DaliLoader(DecodedSource(numbered(2), 8), batch_size=1, seed=0)


@pytest.mark.parametrize("channels", [3, 1])
def test_every_kind_of_picture_is_as_pillow_reads_it(dali, caplog, channels):
    pictures = DecodedSource(Made(KINDS.values()), 40, channels)
    loader = dali(pictures, batch_size=len(KINDS), seed=0, shuffle=False)
    (batch,) = loader
    for name, left, right in zip(KINDS, batch.images.int().cpu(), pictures.read(range(len(KINDS))).int(), strict=True):
        assert (left - right).abs().max() <= MOST[channels], name
    assert caplog.records == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"plain text",
        None,
        encoded(picture(), "BMP"),
        encoded(picture(), "JPEG")[:-40],
        encoded(picture())[:2000],
        encoded(picture(), "WEBP")[:-100],
    ],
)
def test_a_broken_one_is_named_or_skipped_in_its_batch(dali, refuses, caplog, content):
    made = numbered(12)
    made.contents[7] = content
    loader = dali(DecodedSource(made, 8), batch_size=2, seed=0, shuffle=False)
    found = []
    with refuses("made/7: cannot be decoded"):
        for batch in loader:
            found += numbers(batch.images)
    assert found == list(range(6))
    loader = dali(DecodedSource(made, 8, on_bad="skip"), batch_size=2, seed=0, shuffle=False)
    for _ in range(2):
        assert [number for batch in loader for number in numbers(batch.images)] == [*range(7), 8, *range(8, 12)]
    assert [record.getMessage().split(":")[1].strip() for record in caplog.records] == ["made/7"]


def failing(monkeypatch, loader, *steps):
    """The loader's pipelines, which fail in some batches."""
    run, count = _Reader._run, iter(range(1000))

    def or_fail(reader, step):
        if next(count) in steps:
            raise RuntimeError("Critical\nError in CPU operator: no memory\nmore")
        return run(reader, step)

    monkeypatch.setattr(_Reader, "_run", or_fail)
    return loader


def test_what_only_dali_cannot_read_is_read(dali, caplog, monkeypatch):
    loader = failing(monkeypatch, dali(DecodedSource(numbered(20), 8), batch_size=2, seed=0, shuffle=False), 0, 3, 4)
    assert [number for batch in loader for number in numbers(batch.images)] == list(range(20))
    assert [record.getMessage() for record in caplog.records] == [
        f"DALI could not decode the batch of step {step}, Pillow did (Error in CPU operator: no memory)"
        for step in (0, 3, 4)
    ]


def test_it_is_not_used_where_it_fails_always(dali, monkeypatch, refuses):
    loader = failing(monkeypatch, dali(DecodedSource(numbered(20), 8), batch_size=2, seed=0), *range(10))
    with refuses("DALI fails where pictures are whole", "no memory", "use --loader torch"):
        list(loader)


def test_many_broken_pictures_are_no_failure_of_dali(dali):
    made = numbered(30)
    for index in range(0, 30, 2):
        made.contents[index] = b"x"
    loader = dali(DecodedSource(made, 8, on_bad="skip"), batch_size=2, seed=0, shuffle=False)
    assert [number for batch in loader for number in numbers(batch.images)] == [index | 1 for index in range(30)]


def test_the_place_is_that_of_what_was_delivered(dali):
    loader = dali(DecodedSource(numbered(40), 8), batch_size=4, seed=0)
    for step, _ in enumerate(loader):
        time.sleep(0.02)  # in which it is ahead
        assert loader.state_dict() == {"epoch": 0, "step": step + 1}
    assert [thread for thread in threading.enumerate() if thread.name == "fastvae-prefetch"] == []


def test_an_iteration_that_is_still_held_takes_nothing_from_the_next(dali):
    loader = dali(DecodedSource(numbered(40), 8), batch_size=4, seed=0)
    held = iter(loader)
    next(held)
    for epoch in (1, 2):
        loader.set_epoch(epoch)
        found = [numbers(batch.images) for batch in loader]
        assert found == [numbers(loader.fetch(step).images) for step in range(10)]
    held.close()


def test_what_was_delivered_is_not_written_over(dali):
    pictures = DecodedSource(photographs(24), size=40)
    batches = [batch.images for batch in dali(pictures, batch_size=2, seed=0, shuffle=False)]
    assert (torch.cat(batches).cpu().int() - pictures.read(range(24)).int()).abs().max() <= MOST[3]
