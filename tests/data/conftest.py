"""What the data tests share: small IDX files, and the shape of every refusal."""

import gzip
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from caches import Made, opened

from fastvae.utils.errors import InputError

Refuses = Callable[..., AbstractContextManager[None]]


@pytest.fixture(autouse=True)
def _own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test reads or fills the user's folders, or asks a proxy."""
    monkeypatch.delenv("FASTVAE_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def refuses() -> Refuses:
    """A block that must raise InputError: one line that holds every one of the words, with its cause chained."""

    @contextmanager
    def block(*words: object) -> Iterator[None]:
        with pytest.raises(InputError) as caught:
            yield
        message = str(caught.value)
        assert "\n" not in message
        for word in words:
            assert str(word) in message
        assert caught.value.__cause__ is not None or caught.value.__context__ is None

    return block


@pytest.fixture
def serve() -> Iterator[Callable[[Path], str]]:
    """Serve a folder over HTTP on this machine; gives its address."""
    with ExitStack() as stack:

        def start(folder: Path) -> str:
            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder)))
            thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}/"

        yield start


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="session")
def idx_bytes() -> Callable[..., bytes]:
    def build(images: np.ndarray, code: int = 0x08) -> bytes:
        return struct.pack(f">BBBB{images.ndim}I", 0, 0, code, images.ndim, *images.shape) + images.tobytes()

    return build


@pytest.fixture
def idx_folder(tmp_path: Path, idx_bytes: Callable[..., bytes]) -> Callable[..., Path]:
    """A folder of train (7 images of 5 x 3) and test (2) files, whose pixels count up from ``start``."""

    def build(name: str = "idx", layout: str = "", *, packed: bool = False, start: int = 0) -> Path:
        folder = tmp_path / name
        (folder / layout).mkdir(parents=True, exist_ok=True)
        for stem, count in (("train", 7), ("t10k", 2)):
            images = (np.arange(count * 15) + start).astype(np.uint8).reshape(count, 5, 3)
            path = folder / layout / f"{stem}-images-idx3-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(idx_bytes(images)) if packed else idx_bytes(images))
        return folder

    return build


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Made]:
    """A cache of ten images: its folder, and their source."""
    source = Made()
    opened(source, tmp_path / "images")
    return tmp_path / "images", source
