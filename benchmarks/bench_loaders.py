"""Images a second of each loader alone, and of training with each, and the share of a step that waits for data.

Grey images of 28 pixels in memory (IDX: MNIST where FASTVAE_DATA has it, else noise of its size), and JPEGs of 64, 256
and 512 pixels, which this file makes. The baselines are torch's DataLoader with the transforms that a tutorial writes
(PIL, Resize, CenterCrop, ToTensor) and over tensors.
"""

import os
import time
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision import transforms

from fastvae.bench.contenders.tutorial import Pictures as TutorialPictures
from fastvae.data import Batch, ResidentLoader, in_memory, load
from fastvae.data.formats import open_images
from fastvae.data.loaders.choose import has_dali
from fastvae.data.loaders.dali import DaliLoader
from fastvae.data.loaders.dataloader import TorchLoader
from fastvae.data.sources.decode_cache import cached
from fastvae.data.sources.decoded import Pictures
from fastvae.data.sources.source import Held
from fastvae.models import build
from fastvae.train.config import TrainConfig, resolve
from fastvae.train.distributed.world import World
from fastvae.train.engine import Engine

SIDES = {64: 2048, 256: 768, 512: 256}  # of the JPEGs, and how many
SIZE = 64
BATCH = 64  # pixels to which they are resized
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(scope="module")
def grey():
    if os.environ.get("FASTVAE_DATA"):
        return in_memory(load("mnist").train)
    warnings.warn("FASTVAE_DATA is not set: this reads noise in place of MNIST", stacklevel=1)
    return torch.randint(0, 256, (60_000, 1, 28, 28), dtype=torch.uint8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder of JPEGs for each side: coarse noise, smoothed, which compresses as photographs do."""
    found = {}
    for side, count in SIDES.items():
        found[side] = tmp_path_factory.mktemp(f"jpeg-{side}")
        for index in range(count):
            coarse = np.random.default_rng(index).integers(0, 256, (side // 8, side // 6, 3), dtype=np.uint8)
            picture = Image.fromarray(coarse).resize((side * 4 // 3, side), Image.Resampling.BICUBIC)
            picture.save(found[side] / f"{index:05d}.jpg", quality=90)
    return found


class Usual(Dataset):
    """A folder as torchvision's tutorials read it."""

    def __init__(self, folder):
        self.files = sorted(folder.iterdir())
        steps = [transforms.Resize(SIZE), transforms.CenterCrop(SIZE), transforms.ToTensor()]
        self.transform = transforms.Compose(steps)

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        with Image.open(self.files[index]) as picture:
            return self.transform(picture.convert("RGB")), 0


def usual(dataset, batch, workers):
    options = {"num_workers": workers, "persistent_workers": workers > 0, "shuffle": True}
    return DataLoader(dataset, batch_size=batch, **options)


def pictures(folder):
    train, _ = open_images(str(folder), None)
    return Pictures(train, SIZE)


def mapped(folder):
    return cached(pictures(folder), folder.parent / f"{folder.name}-cache", {}, workers=2, show_progress=False)


def by_tutorial(images, workers):
    return usual(TutorialPictures(images), 100, workers)


def by_torchvision(folder, workers):
    return usual(Usual(folder), BATCH, workers)


def by_torch(folder, workers):
    return TorchLoader(pictures(folder), workers=workers, batch_size=BATCH, **OPTIONS)


OPTIONS = {"seed": 0, "device": DEVICE}
OF_GREY = {
    "tutorial's DataLoader": partial(by_tutorial, workers=0),
    "tutorial's DataLoader, 2 workers": partial(by_tutorial, workers=2),
    "DataLoader over a tensor": lambda images: usual(TensorDataset(images.float() / 255), 100, 0),
    "resident": lambda images: ResidentLoader(images, batch_size=100, **OPTIONS),
    "torch": lambda images: TorchLoader(Held(images), batch_size=100, **OPTIONS),
}
OF_FOLDERS = {
    **{f"DataLoader + torchvision, {n} workers": partial(by_torchvision, workers=n) for n in (0, 1, 2)},
    **{f"torch, {n} workers": partial(by_torch, workers=n) for n in (0, 1, 2)},
    "torch, --cache": lambda folder: TorchLoader(mapped(folder), batch_size=BATCH, **OPTIONS),
}
if has_dali():
    OF_FOLDERS["dali"] = lambda folder: DaliLoader(pictures(folder), batch_size=BATCH, **OPTIONS)


def deliver(loader):
    seen = 0
    for batch in loader:
        images = batch[0].to(DEVICE)
        seen += len(images)
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return seen


def measure(benchmark, name, loader, call, rounds):
    seen = call(loader)  # starts its processes, and decodes once
    benchmark.pedantic(call, (loader,), rounds=rounds)
    seconds = benchmark.stats.stats.median
    benchmark.extra_info.update(name=name, baseline="DataLoader" in name, per=seen, images_per_s=round(seen / seconds))


@pytest.mark.parametrize("name", OF_GREY)
def test_images_in_memory(benchmark, grey, name):
    benchmark.group = "an epoch of 60,000 grey images of 28 pixels, batch 100 (ms an image)"
    measure(benchmark, name, OF_GREY[name](grey), deliver, 3)


@pytest.mark.parametrize("name", OF_FOLDERS)
@pytest.mark.parametrize("side", SIDES)
def test_folders_of_jpegs(benchmark, folders, side, name):
    benchmark.group = f"JPEGs of {side} pixels, resized to {SIZE}, batch {BATCH} (ms an image)"
    measure(benchmark, name, OF_FOLDERS[name](folders[side]), deliver, 3)


@pytest.mark.parametrize("name", OF_FOLDERS)
def test_training_on_jpegs(benchmark, folders, name):
    """conv64 at a quarter of its width; ``waiting`` is the share of the time in which the step had no batch."""
    benchmark.group = f"training on JPEGs of 256 pixels, resized to {SIZE}, batch {BATCH} (ms an image)"
    config = resolve(TrainConfig(preset="conv64", width=8, batch_size=BATCH, precision="fp32", execution="traced"))
    model = build(config.recipe, (3, SIZE, SIZE), config.latent_dim, config.width)
    engine = Engine(model, config, config.recipe, World(0, 0, 1, DEVICE))
    loader = OF_FOLDERS[name](folders[256])

    def epoch(batches):
        seen = 0
        for batch in batches:
            images = batch[0].to(DEVICE)
            if images.is_floating_point():  # ToTensor's; the likelihood is of 8 bits
                images = (images * 255).round().byte()
            engine.train_step(Batch(images, 0, len(images)))
            seen += len(images)
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        return seen

    epoch(loader)  # traces, and starts processes
    before = getattr(loader, "waited", None)
    started = time.perf_counter()
    measure(benchmark, name, loader, epoch, 2)
    if before is not None:
        benchmark.extra_info["waiting"] = round((loader.waited - before) / (time.perf_counter() - started), 4)
