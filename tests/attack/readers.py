"""The readers that fuzzers call, as commands do, and valid files of each format to damage."""

import gzip
import io
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from random import Random

import numpy as np
import torch
from cases.arrays import idx
from cases.tars import END, good
from inputs import forge, images, png
from mutate import damaged, damaged_json

from fastvae.data import Dataset, TensorSource, load
from fastvae.data.datasets.idx import read_images
from fastvae.data.sources.decode_cache import open_cache
from fastvae.data.sources.decoded import DecodedSource
from fastvae.evaluate.saved_run import SavedRun, evaluate
from fastvae.train.checkpoint import checkpoint
from fastvae.train.distributed.world import World
from fastvae.train.measure import autotune
from fastvae.train.report.run_folder import RunFolder

Mutate = Callable[[Random, bytes, list[bytes]], bytes]
_CPU = torch.device("cpu")
_WORLD = World(0, 0, 1, _CPU)


@dataclass(frozen=True)
class Format:
    """A format that a fuzzer reads, in the current folder.

    Args:
        what: name of the format.
        share: weight in the number of all mutations.
        make: returns valid files by name, and makes everything else that the reader needs beside them.
        read: reads the file with that name.
        mutate: damages a file.
        needs: a package without which the format is skipped.
    """

    what: str
    share: float
    make: Callable[[Path], dict[str, bytes]]
    read: Callable[[str], object]
    mutate: Mutate = damaged
    needs: str = ""

    @property
    def is_missing(self) -> bool:
        return bool(self.needs) and find_spec(self.needs) is None


def _ends(dataset: Dataset) -> None:
    """Read the first and the last image of both splits."""
    for split in (dataset.train, dataset.test):
        if not isinstance(split, TensorSource):
            split.read([0, len(split) - 1])


def _array(name: str) -> None:
    _ends(load(name))


def _pictures(name: str) -> None:
    _ends(load(name, size=8, channels=1))


def _saved(make: Callable[..., object], **arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    make(file, **arrays)
    return file.getvalue()


def _npys(_: Path) -> dict[str, bytes]:
    pixels = images()[:4]
    kinds = (pixels, pixels.astype("f4"), np.asfortranarray(pixels[..., None].repeat(3, -1)))
    return {f"{n}.npy": _saved(np.save, arr=kind) for n, kind in enumerate(kinds)}


def _npzs(_: Path) -> dict[str, bytes]:
    pixels = images()[:4]
    return {
        "0.npz": _saved(np.savez, images=pixels),
        "1.npz": _saved(np.savez_compressed, x_train=pixels, x_test=pixels),
    }


def _idxs(_: Path) -> dict[str, bytes]:
    whole = idx(4, 8, 8, images()[:4].tobytes())
    return {"images": whole, "images.gz": gzip.compress(whole, mtime=0)}


def _one(name: str) -> None:
    """Read a single image by way of memory."""

    class Held:
        def __len__(self) -> int:
            return 1

        def encoded(self, _: int) -> bytes:
            return Path(name).read_bytes()

        def name(self, _: int) -> str:
            return name

    DecodedSource(Held(), 8).read([0])


def _list(folder: Path) -> dict[str, bytes]:
    for number in range(4):
        (folder / f"{number}.png").write_bytes(png(number))
    return {"x.txt": b"".join(b"%d.png\n" % number for number in range(4)) + b"# no more\n\n"}


def _checkpoint(_: Path) -> dict[str, bytes]:
    tensors = {"model.a": torch.arange(6.0).view(2, 3), "sums": torch.zeros(4, dtype=torch.float64)}
    checkpoint.write(Path("made.safetensors"), checkpoint.Checkpoint(tensors, {"step": 1, "epoch": 1}))
    return {"x.safetensors": Path("made.safetensors").read_bytes()}


def _run(folder: Path) -> Path:
    """Copy a run whose data are a small array in this folder, so that a damaged path leads nowhere."""
    run = folder / "run"
    shutil.copytree(folder.parent / "templates" / "run", run)
    np.save(folder / "x.npy", images())
    file = run / "config.json"
    content = json.loads(file.read_text())
    content["settings"]["data"] = "x.npy"
    content["data"].pop("fingerprint", None)  # other images would be told at each evaluation
    file.write_text(json.dumps(content))
    return run


def _config(folder: Path) -> dict[str, bytes]:
    return {"run/config.json": (_run(folder) / "config.json").read_bytes()}


def _evaluated(_: str) -> None:
    run = SavedRun.open(Path("run"), _CPU)
    evaluate(run, run.test_loader(None))


def _values(folder: Path) -> dict[str, bytes]:
    """Return the values of a checkpoint, to be damaged and stored with a correct checksum."""
    run = _run(folder)
    (path,) = run.glob("checkpoints/step-*")
    shutil.copytree(run, folder / "whole")
    return {"values.json": json.dumps(checkpoint.load(path).values).encode()}


def _forged(name: str) -> None:
    shutil.rmtree("run")
    shutil.copytree("whole", "run")
    forge(Path("run"), lambda _: None, Path(name).read_text(errors="replace"))
    _evaluated(name)


def _metrics(folder: Path) -> dict[str, bytes]:
    return {"run/metrics.jsonl": (_run(folder) / "metrics.jsonl").read_bytes()}


def _forgotten(_: str) -> None:
    run = RunFolder(Path("run"), resume=True)
    try:
        run.forget_after(24, 2)
    finally:
        run.close()
    for path in Path("run").glob("events.*"):
        path.unlink()


def _cache(folder: Path) -> dict[str, bytes]:
    _cached("")
    return {"kept/cache.json": (folder / "kept/cache.json").read_bytes()}


def _cached(_: str) -> None:
    source = TensorSource(torch.from_numpy(images()[:4, None]))
    open_cache(source, Path("kept"), {"data": "x"}, workers=1, show_progress=False).read([0, 3])


def _autotune(_: Path) -> dict[str, bytes]:
    choice = {"precision": "fp32", "execution": "traced", "milliseconds": {"fp32, traced": 1.5}}
    return {"autotune.json": json.dumps({"a": choice}).encode()}


def _chosen(name: str) -> None:
    autotune._file = lambda: Path(name)
    str(autotune._known(autotune._read().get("a"), ["fp32", "bf16"]))


def _hdf5(folder: Path) -> dict[str, bytes]:
    import h5py  # noqa: PLC0415 -- only in the adapters' environment

    made = {}
    for name, options in (("0.h5", {}), ("1.h5", {"chunks": (2, 8, 8), "compression": "gzip"})):
        with h5py.File(folder / name, "w") as file:
            file.create_dataset("images", data=images()[:8], **options)
            file.create_group("more").attrs["a"] = "b"
        made[name] = (folder / name).read_bytes()
    return made


def _huggingface(names: Sequence[str]) -> Callable[[Path], dict[str, bytes]]:
    def make(folder: Path) -> dict[str, bytes]:
        from cases.huggingface import save  # noqa: PLC0415

        save(folder / "saved")
        found = [path for name in names for path in (folder / "saved").glob(name)]
        return {os.path.relpath(path, folder): path.read_bytes() for path in found}

    return make


def _saved_set(_: str) -> None:
    _pictures("saved")


FORMATS = {
    "npy": Format(".npy", 32, _npys, _array),
    "npz": Format(".npz", 18, _npzs, _array),
    "idx": Format("IDX and IDX.gz", 25, _idxs, lambda name: read_images(Path(name))),
    "tar": Format("tar", 16, lambda _: {"x.tar": good(4) + END}, _pictures),
    "png": Format("PNG", 24, lambda _: {"x.png": png(), "y.png": png(1, 20)}, _one),
    "jpeg": Format("JPEG", 18, lambda _: {"x.jpg": png(kind="JPEG"), "y.jpg": png(1, 20, "JPEG")}, _one),
    "webp": Format("WebP", 14, lambda _: {"x.webp": png(kind="WEBP"), "y.webp": png(1, 20, "WEBP")}, _one),
    "list": Format("lists of pictures", 12, _list, _pictures),
    "checkpoint": Format("checkpoints", 24, _checkpoint, lambda name: checkpoint.load(Path(name))),
    "values": Format("values in checkpoints, checksum right", 1, _values, _forged, damaged_json),
    "config": Format("config.json, evaluated", 3, _config, _evaluated, damaged_json),
    "metrics": Format("metrics.jsonl, resumed", 1, _metrics, _forgotten, damaged_json),
    "cache": Format("cache.json", 6, _cache, _cached, damaged_json),
    "autotune": Format("autotune.json", 8, _autotune, _chosen, damaged_json),
    "hdf5": Format("HDF5", 8, _hdf5, _array, needs="h5py"),
    "huggingface": Format(
        "state.json and dataset_info.json", 0.4, _huggingface(("*.json",)), _saved_set, damaged_json, "datasets"
    ),
    "arrow": Format("Arrow files", 0.4, _huggingface(("*.arrow",)), _saved_set, needs="datasets"),
}
