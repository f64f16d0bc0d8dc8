"""Named pipes and devices in place of files: fastvae must not block on them or read them endlessly."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from case import Case
from inputs import PICTURES, fifo, folder_of_pictures, link, train
from place import Place
from undisturbed import RESUME

from . import caches, huggingface
from .configs import EVALUATE

Put = Callable[[Path], Path]
device: Put = partial(link, target="/dev/zero")


def _data(put: Put, place: Place, name: str, flags: Sequence[str]) -> list[str]:
    put(place.work / name)
    return train(name, *flags)


def _in_run(put: Put, place: Place, name: str, command: tuple[str, ...]) -> tuple[str, ...]:
    folder = place.copy_run()
    for path in folder.glob(name):
        put(path)
    return command


def _idx(put: Put, place: Place, suffix: str) -> list[str]:
    for stem in ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte"):
        put(place.work / f"{stem}{suffix}")
    return train("mnist", "--data-dir", ".")


def _cifar(put: Put, place: Place) -> list[str]:
    folder = place.work / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("batches.meta", "test_batch", *(f"data_batch_{number}" for number in range(1, 6))):
        put(folder / name)
    return train("cifar10", "--data-dir", ".")


def _picture(put: Put, place: Place) -> list[str]:
    link(folder_of_pictures(place.work / "d") / "01.png", put(place.work / "put"))
    return train("d", *PICTURES)


def _unlinked(put: Put, place: Place) -> list[str]:
    put(folder_of_pictures(place.work / "d") / "01.png")
    return train("d", *PICTURES)


def _listed(put: Put, place: Place) -> list[str]:
    put(folder_of_pictures(place.work / "d") / "01.png")
    (place.work / "list.txt").write_text("".join(f"d/{number:02}.png\n" for number in range(40)))
    return train("list.txt", *PICTURES)


def _tars(put: Put, place: Place) -> list[str]:
    (place.work / "tars").mkdir()
    put(place.work / "tars" / "a.tar")
    return train("tars", *PICTURES)


def _cache(put: Put, place: Place, name: str) -> list[str]:
    put(caches.filled(place) / name)
    return caches.COMMAND


def _saved_picture(put: Put, place: Place) -> list[str]:
    """Save rows that name files instead of holding images, as datasets itself never does."""
    import pyarrow  # noqa: PLC0415 -- only in the adapters' environment

    folder = huggingface.save(place.work / "saved")
    (rows,) = folder.glob("*.arrow")
    with pyarrow.ipc.open_stream(rows.read_bytes()) as stream:
        table = stream.read_all()
    paths = [{"bytes": None, "path": str(put(place.work / f"put-{number}"))} for number in range(len(table))]
    column = pyarrow.array(paths, table.schema.field("image").type)
    with pyarrow.ipc.new_stream(str(rows), table.schema) as stream:
        stream.write_table(pyarrow.table([column], schema=table.schema))
    return train("saved", *PICTURES)


def _external(put: Put, place: Place) -> list[str]:
    """Write an HDF5 data set whose pixels lie in another file."""
    import h5py  # noqa: PLC0415

    raw = place.work / "raw.bin"
    raw.write_bytes(bytes(40 * 64))
    with h5py.File(place.work / "x.h5", "w") as file:
        file.create_dataset("images", (40, 8, 8), np.uint8, external=[(str(raw), 0, 40 * 64)])
    put(raw)
    return train("x.h5")


_BUILDS: tuple[tuple[str, str, Callable[[Put, Place], Sequence[str]]], ...] = (
    ("F01", "--data x.npy", partial(_data, name="x.npy", flags=())),
    ("F02", "--data x.txt", partial(_data, name="x.txt", flags=PICTURES)),
    ("F03", "--data x.tar", partial(_data, name="x.tar", flags=PICTURES)),
    ("F04", "--data x.npz", partial(_data, name="x.npz", flags=())),
    ("F05", "--data x.h5", partial(_data, name="x.h5", flags=())),
    ("F12", "a picture in a folder", _unlinked),
    ("F13", "a link in a folder of pictures", _picture),
    ("F14", "a picture in a list", _listed),
    ("F17", "an archive in a folder", _tars),
    ("F18", "CIFAR-10's batches", _cifar),
    ("X04", "IDX files", partial(_idx, suffix="")),
    ("X05", "IDX.gz files", partial(_idx, suffix=".gz")),
    ("C36", "config.json", partial(_in_run, name="config.json", command=EVALUATE)),
    ("C37", "config.json of a run that is resumed", partial(_in_run, name="config.json", command=RESUME)),
    ("K21", "a checkpoint", partial(_in_run, name="checkpoints/*.safetensors", command=EVALUATE)),
    ("S18", "the lock", partial(_in_run, name="lock", command=RESUME)),
    ("S19", "metrics.jsonl; resume", partial(_in_run, name="metrics.jsonl", command=RESUME)),
    ("Q01", "--cache: .lock", partial(_cache, name=".lock")),
    ("Q07", "--cache: cache.json", partial(_cache, name="cache.json")),
    ("Q08", "--cache: verified.json", partial(_cache, name="verified.json")),
    ("H04", "HDF5: external storage", _external),
    ("D04", "Hugging Face: a picture's path", _saved_picture),
)
_NEEDS = {"F05": "h5py", "H04": "h5py", "D04": "datasets"}
# These may be replaced, left alone or skipped.
_KEPT = {"F12", "S18", "S19", "Q01", "Q07", "Q08"}
_QUICK = {"F01", "F13", "X04", "C36", "Q01"}

CASES = [
    Case(
        id=f"{name}{suffix}",
        what=f"{what}: {kind}",
        build=partial(build, put),
        expect="either" if name in _KEPT else "refused",
        quick=name in _QUICK and put is fifo,
        needs=_NEEDS.get(name, ""),
    )
    for put, kind, suffix in ((fifo, "a FIFO", ""), (device, "/dev/zero", "z"))
    for name, what, build in _BUILDS
]
