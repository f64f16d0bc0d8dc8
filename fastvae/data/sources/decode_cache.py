"""A cache of decoded images on the disk, for data that is trained on often.

Its folder has ``images.bin``, the pixels as :class:`.MemmapSource` reads them, and ``cache.json``, which describes them
and is written last. Others may be able to write to that folder, so the record of the checksums that were last verified
is kept in the user's own ``~/.cache/fastvae/verified``.
"""

import json
import math
import os
import shutil
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import torch
import xxhash
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text
from torch import Tensor

from fastvae.utils.errors import InputError
from fastvae.utils.files import (
    atomic_write,
    open_in_place,
    open_regular,
    own_folder,
    read_json,
    real_folder,
    reason,
    write_text,
)
from fastvae.utils.lock import take_lock
from fastvae.utils.machine import cache_folder
from fastvae.utils.terminal import Terminal

from .memmap import MemmapSource
from .source import Source

_FORMAT = 1
_CHUNK = 1 << 26  # bytes of one checksum
_PART = 64, 1 << 22  # at most so many images, and bytes of them, are decoded together by one thread
_IMAGES = "images.bin"
_ABOUT = "cache.json"
_LOCK = ".lock"
Key = Mapping[str, str | int]


def open_cache(source: Source, folder: Path, key: Key, *, workers: int, show_progress: bool) -> MemmapSource:
    """Open the cache of a source's images, which is made if it is not there.

    Args:
        source: at least one uint8 image.
        folder: the folder of these images alone. If several processes open it, one makes it and the others wait.
        key: what the images were made from: a folder with another key is refused.
        workers: threads that read the source, >= 1.
        show_progress: draw a bar on stderr.

    The checksums of the file are verified once after every change of it, and so right after it was made.

    Raises:
        InputError: the disk has no room or refuses the file, the folder holds something else or is damaged, or the
            source raises it. Nothing is left that looks whole.
    """
    if source.dtype != torch.uint8:
        raise InputError(f"--cache keeps images of uint8, but these are {source.dtype}: leave out --cache")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        real_folder(folder)
        with _alone(folder, show_progress):
            if not (folder / _ABOUT).exists():
                sums = _make(source, folder, workers, show_progress)
                about = {"format": _FORMAT, "shape": source.shape, "key": dict(key), "xxh3_128": sums}
                write_text(folder / _ABOUT, json.dumps(about, indent=1) + "\n")
            sums = _sums(folder, {**key, "shape": list(source.shape)})
            images = MemmapSource(folder / _IMAGES, source.shape)
            _verify(folder, sums, show_progress)
    except OSError as error:
        raise InputError(
            f"cannot make or open the cache {folder} ({reason(error)}): fix that, choose another --cache, "
            "or leave it out"
        ) from error
    return images


def _make(source: Source, folder: Path, workers: int, show: bool) -> list[str]:
    """Write the images, and return their checksums."""
    for name in (_IMAGES, _IMAGES + ".partial"):  # left by a process that was killed
        (folder / name).unlink(missing_ok=True)
    needed = math.prod(source.shape)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{folder} has {free / 1e9:.2f} GB free, but {len(source):,} decoded images need {needed / 1e9:.2f} GB: "
            "free some space, choose another --cache, or leave it out"
        )
    sums = _Sums()
    with (
        atomic_write(folder / _IMAGES) as file,
        _bar(show, "images") as progress,
        closing(_in_order(source, workers)) as parts,
    ):
        task = progress.add_task("decoding", total=len(source))
        for images in parts:
            content = images.permute(0, 2, 3, 1).contiguous().view(-1).numpy().data
            sums.add(content)
            file.write(content)
            progress.advance(task, len(images))
    return sums.done()


def _in_order(source: Source, workers: int) -> Generator[Tensor, None, None]:
    """Yield all images, read by threads a few parts ahead: a slow disk must not let the parts pile up in memory."""
    size = max(1, min(_PART[0], _PART[1] // math.prod(source.shape[1:])))
    parts = (range(start, min(start + size, len(source))) for start in range(0, len(source), size))
    pending: deque[Future[Tensor]] = deque()
    with ThreadPoolExecutor(workers) as threads:
        try:
            pending.extend(threads.submit(source.read, part) for part in islice(parts, 2 * workers))
            while pending:
                images = pending.popleft().result()
                pending.extend(threads.submit(source.read, part) for part in islice(parts, 1))
                yield images
        finally:
            for future in pending:
                future.cancel()


class _Sums:
    """The checksums of all that is added, one for each chunk."""

    def __init__(self) -> None:
        self._sums: list[str] = []
        self._digest = xxhash.xxh3_128()
        self._filled = 0

    def add(self, content: memoryview) -> None:
        while len(content):
            taken = content[: _CHUNK - self._filled]
            self._digest.update(taken)
            self._filled += len(taken)
            content = content[len(taken) :]
            if self._filled == _CHUNK:
                self._next()

    def done(self) -> list[str]:
        if self._filled:
            self._next()
        return self._sums

    def _next(self) -> None:
        self._sums.append(self._digest.hexdigest())
        self._digest = xxhash.xxh3_128()
        self._filled = 0


def _sums(folder: Path, wanted: Mapping[str, object]) -> list[str]:
    """Return the checksums of the images in the folder, if these are the images that are wanted."""
    about = _read(folder / _ABOUT)
    remedy = f"remove the folder {folder}, and it is made again"
    key = about.get("key")
    sums = about.get("xxh3_128")
    if not isinstance(key, dict) or not isinstance(sums, list):
        raise InputError(f"{folder / _ABOUT} describes no cache of images: {remedy}")
    if about.get("format") != _FORMAT:
        raise InputError(f"{folder / _ABOUT} has format {about.get('format')!r}, not {_FORMAT}: {remedy}")
    held = {**key, "shape": about.get("shape")}
    for name in sorted({*held, *wanted}):
        if held.get(name) != wanted.get(name):
            raise InputError(
                f"{folder} holds other images (their {name} is {held.get(name)!r}, not {wanted.get(name)!r}): "
                f"choose another --cache, or {remedy}"
            )
    return sums


def _verify(folder: Path, sums: list[str], show: bool) -> None:
    """Verify the checksums, unless that was done since the file last changed."""
    path = folder / _IMAGES
    state: dict[str, object] = {**_state(path), "sums": sums}
    known: Path | None = None
    with suppress(OSError):  # without a folder of the user's own, the file is verified each time
        records = own_folder(own_folder(cache_folder()) / "verified")
        known = records / f"{xxhash.xxh3_64_hexdigest(os.fsencode(path.absolute()))}.json"
        if _read(known) == state:
            return
    with open_regular(path) as file, _bar(show, "bytes") as progress:
        chunks = iter(lambda: file.read(_CHUNK), b"")
        task = progress.add_task("checking", total=path.stat().st_size)
        for place, (chunk, expected) in enumerate(zip_longest(chunks, sums, fillvalue=b"")):
            if xxhash.xxh3_128_hexdigest(chunk) != expected:
                raise InputError(
                    f"{path} is damaged, its checksum differs in the {_CHUNK:,} bytes from {place * _CHUNK:,} on: "
                    f"remove the folder {folder}, and it is made again"
                )
            progress.advance(task, len(chunk))
    with suppress(OSError):
        if known is not None:
            write_text(known, json.dumps(state) + "\n")


def _state(path: Path) -> dict[str, int]:
    """Return what changes when a file is written, copied or replaced; bit rot changes none of it."""
    status = path.stat()
    return {
        "size": status.st_size, "inode": status.st_ino, "mtime_ns": status.st_mtime_ns, "ctime_ns": status.st_ctime_ns
    }  # fmt: skip


@contextmanager
def _alone(folder: Path, show: bool) -> Iterator[None]:
    """Hold the folder's lock, which the system releases when its holder dies."""
    with ExitStack() as held:
        try:
            file = held.enter_context(open_in_place(folder / _LOCK, os.O_RDWR | os.O_CREAT, "r+"))
            if not take_lock(file):
                if show:
                    Terminal(stderr=True).print(f"waiting for the process that makes {folder}")
                take_lock(file, wait=True)
        except OSError:  # a folder that may only be read, or a file system without locks
            if not (folder / _ABOUT).exists():
                raise
        yield


class _Speed(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:,.0f} {self._unit}/s")


def _bar(show: bool, unit: str) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), _Speed(unit), TimeRemainingColumn())
    return Progress(*columns, console=Terminal(stderr=True), transient=True, disable=not show)


def _read(path: Path) -> dict[str, Any]:
    """Read a JSON object; an empty one if the file has none."""
    with suppress(OSError, ValueError):
        content = read_json(path)
        if isinstance(content, dict):
            return content
    return {}
