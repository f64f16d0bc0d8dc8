"""Bad data: files and folders of images that cannot be read."""

import numpy as np
import pytest

from .refusal import assert_refused, text


def array(values, **options):
    """A file data.npy."""
    return lambda folder: np.save(folder / "data.npy", values, **options)


HEADER = "{'descr': '|u1', 'fortran_order': False, 'shape': (9, 1, 8, 8), }"
SHORT = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + HEADER.ljust(117).encode() + b"\n" + bytes(64)
IMAGES = np.zeros((9, 8, 8), np.uint8)
BAD = {
    "data cut off": (text("data.npy", SHORT), ["--data", "data.npy"], r"data\.npy"),
    "data is text": (text("data.npy", "zeros"), ["--data", "data.npy"], r"data\.npy"),
    "data of objects": (
        array(np.array([{}, {}]), allow_pickle=True),
        ["--data", "data.npy"],
        r"data\.npy",
    ),
    "data of text": (array(np.array(["a", "b"])), ["--data", "data.npy"], r"data\.npy.*<U1"),
    "data of one dimension": (array(np.zeros(9, np.uint8)), ["--data", "data.npy"], r"data\.npy.*\(9,\)"),
    "no data": (array(IMAGES[:0]), ["--data", "data.npy"], r"data\.npy"),
    "pixels that are NaN": (array(np.full((9, 8, 8), np.nan, np.float32)), ["--data", "data.npy"], r"data\.npy|pixel"),
    "pixels beyond 1": (array(np.full((9, 8, 8), 2, np.float32)), ["--data", "data.npy"], r"2"),
    "data is a folder": (text("data.npy/a", ""), ["--data", "data.npy"], r"data\.npy"),
    "no pictures": (text("folder/notes", ""), ["--data", "folder"], r"folder"),
    "pictures of any size": (
        text("folder/a.png", "x"),
        ["--data", "folder"],
        r"folder",
    ),
    "broken pictures": (
        lambda folder: [text(f"folder/{n}.png", "x")(folder) for n in "abc"],
        ["--data", "folder", "--image-size", "28"],
        r"folder/.\.png: cannot be decoded \(it is not a JPEG, PNG or WebP\): repair or remove it, or use --on-bad",
    ),
    "nothing but broken pictures": (
        lambda folder: [text(f"folder/{n}.png", "x")(folder) for n in "abc"],
        ["--data", "folder", "--image-size", "28", "--on-bad-image", "skip"],
        r"none of \d pictures can be decoded",
    ),
    "an IDX file cut off": (
        text("mnist/train-images-idx3-ubyte", b"\0\0\x08\x03"),
        ["--data", "mnist", "--data-dir", "mnist"],
        r"mnist",
    ),
    "no such data folder": (lambda folder: None, ["--data", "mnist"], r"nowhere"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_data(case, tmp_path, monkeypatch, capsys):
    prepare, flags, message = BAD[case]
    prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    if case == "no such data folder":
        monkeypatch.setenv("FASTVAE_DATA", "nowhere")
    assert_refused(tmp_path, flags, message, capsys)
