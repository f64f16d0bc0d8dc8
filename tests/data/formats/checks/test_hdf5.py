"""Chunks of HDF5 that unpack to more than they declare."""

import zlib

import numpy as np
import pytest

from fastvae.data.formats.hdf5 import read_hdf5

h5py = pytest.importorskip("h5py", reason="make adapters")


def test_a_chunk_that_unpacks_to_more_is_refused(tmp_path, refuses):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        images = file.create_dataset("images", (20, 8, 8), "u1", chunks=(20, 8, 8), compression="gzip")
        stream = zlib.compressobj(9)
        packed = b"".join(stream.compress(bytes(1 << 24)) for _ in range(24)) + stream.flush()
        images.id.write_direct_chunk((0, 0, 0), packed)
    with refuses(tmp_path / "x.h5", "unpacks to more than the 1,280", "save it again"):
        read_hdf5(tmp_path / "x.h5", None)


def test_filters_on_top_of_one_another_are_refused(tmp_path, refuses):
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_chunk((4, 8, 8))
    settings.set_deflate(9)
    settings.set_filter(h5py.h5z.FILTER_DEFLATE, 0, (9,))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        space = h5py.h5s.create_simple((4, 8, 8))
        h5py.h5d.create(file.id, b"images", h5py.h5t.NATIVE_UINT8, space, settings)
    with refuses(tmp_path / "x.h5", "packed by 2 filters"):
        read_hdf5(tmp_path / "x.h5", None)


@pytest.mark.parametrize("options", [{}, {"shuffle": True, "fletcher32": True}, {"compression": "lzf"}])
def test_large_chunks_that_are_right_are_read(tmp_path, options):
    images = np.random.default_rng(0).integers(0, 256, (40, 128, 128), dtype=np.uint8)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("images", data=images, chunks=(40, 128, 128), **{"compression": "gzip", **options})
    train, test = read_hdf5(tmp_path / "x.h5", None)
    assert np.array_equal(test[:, 0].numpy(), images[::10])
    assert len(train) == 36


def test_a_link_to_another_file_is_refused_where_a_class_would_follow_it(tmp_path, refuses):
    from fastvae.data.formats.checks.hdf5 import check_alone  # noqa: PLC0415

    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = h5py.ExternalLink("other.h5", "images")
    with refuses(tmp_path / "x.h5", "is a link to another file, other.h5"):
        check_alone(tmp_path / "x.h5")


def test_nothing_stored_is_no_gigabyte(tmp_path, refuses):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("images", (10**6, 1000), "u1", chunks=(1, 1000))
    with refuses(tmp_path / "x.h5", "unpacks from 0 bytes to 1,000,000,000", "FASTVAE_MAX_UNPACKED"):
        read_hdf5(tmp_path / "x.h5", None)
