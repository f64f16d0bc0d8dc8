"""Sparse members of a tar archive, whose bytes do not lie in one place, are left out."""

import io
import tarfile

import pytest

from fastvae.data.formats import open_images


def member(archive, name, content, **records):
    info = tarfile.TarInfo(name)
    info.size, info.pax_headers = len(content), records
    archive.addfile(info, io.BytesIO(content))


@pytest.fixture
def archive(tmp_path):
    """Write two plain pictures and, between them, a sparse one of 3 bytes and a hole, as GNU tar's --sparse does."""
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        member(archive, "a.jpg", b"first")
        where = b"1\n0\n3\n".ljust(512, b"\0")  # one piece, at 0, of 3 bytes
        sparse = {"major": "1", "minor": "0", "name": "holes.jpg", "realsize": "4096"}
        member(archive, "x.jpg", where + b"abc", **{f"GNU.sparse.{key}": value for key, value in sparse.items()})
        member(archive, "b.jpg", b"second")
    return path


def test_sparse_members_are_left_out(archive):
    with tarfile.open(archive) as opened:
        assert [(found.name, found.issparse()) for found in opened] == [
            ("a.jpg", False),
            ("holes.jpg", True),
            ("b.jpg", False),
        ]
    train, test = open_images(str(archive), None)
    assert (len(train), len(test)) == (1, 1)
    assert (test.encoded(0), train.encoded(0)) == (b"first", b"second")
    assert train.name(0) == f"{archive}/b.jpg"
