"""The key of a cache of decoded images: which images it has, and the state of their files when they were decoded."""

import os
from pathlib import Path

import xxhash

from .decoded import DecodedSource
from .source import Source

Key = dict[str, str | int]


def cache_key(source: Source, split: str, data: str, data_dir: Path | None, on_bad_image: str) -> Key:
    """Return what decides the pixels of a source: a cache with another key has other images.

    Args:
        source: the images.
        split: "train" or "test".
        data, data_dir, on_bad_image: the settings that they were opened by.
    """
    path = os.path.abspath(data) if os.path.exists(data) else data
    key: Key = {"data": path, "split": split, "on_bad_image": on_bad_image}
    key |= {"images": len(source), "channels": source.shape[1], "size": source.shape[2]}
    if data_dir is not None:
        key["data_dir"] = os.path.abspath(data_dir)
    key["files"] = _files(source, data)
    return key


def folder_name(key: Key) -> str:
    """Return the name of the key's folder, "train-0123456789abcdef" say."""
    return f"{key['split']}-{xxhash.xxh3_64_hexdigest(repr(sorted(key.items())).encode())}"


def _files(source: Source, data: str) -> str:
    """Return a checksum of the images' names, and of the sizes and times of the files that hold them."""
    if not isinstance(source, DecodedSource):
        return xxhash.xxh3_128_hexdigest(f"{data} {_stamp(os.fsencode(data))}".encode(errors="surrogateescape"))
    digest = xxhash.xxh3_128()
    last: bytes | None = None
    stamp = ""
    for index in range(len(source)):
        file = source.encoded.file(index)
        if file != last:  # images of one archive follow one another
            last = file
            stamp = _stamp(file)
        digest.update(f"{source.encoded.name(index)} {stamp}\n".encode())
    return digest.hexdigest()


def _stamp(file: bytes) -> str:
    """Return the size and the time of a file; for FILE.h5:KEY, those of the folder that holds it."""
    try:
        status = os.stat(file)
    except OSError:
        status = os.stat(os.path.dirname(file) or b".")
    return f"{status.st_size} {status.st_mtime_ns}"
