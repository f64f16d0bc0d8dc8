"""The settings of the data layer: which images, how they are read, and which loader delivers them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images a run reads, and how."""

    data: str = "digits"
    """digits (embedded), mnist, fashion-mnist, kmnist, cifar10; a folder, a list or tar shards of pictures; .npy, .npz
    or .h5; a folder of Hugging Face's datasets; torchvision:NAME."""
    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: none)")] = None
    """Folder with the data set's files; else $FASTVAE_DATA, else they are downloaded."""
    image_size: Annotated[
        int | None, tyro.conf.arg(metavar="PIXELS", help_behavior_hint="(default: the preset's, or as the data is)")
    ] = None
    """Side of the images that the model sees: the middle square of each, resized.
    Presets for pictures take 4 to 7 times a power of two: 28, 32, 40, 48, 56, 64, 80, 96, 112, 128 ... 256."""
    channels: Annotated[int, tyro.conf.arg(metavar="{1,3}")] = 3
    """What pictures are read as: 3 is RGB, 1 is grey."""
    crop: Literal["center", "random"] = "center"
    """random: read images larger by 1/7, and train on a place of each that is drawn anew in each epoch."""
    flip: bool = False
    """Mirror a half of the training images, drawn anew in each epoch."""
    loader: Literal["auto", "resident", "dali", "torch"] = "auto"
    """What fetches the same batches: the device that holds all, NVIDIA DALI (pictures), or torch's DataLoader."""
    workers: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: the cores)")] = None
    """Processes of --loader torch that decode pictures; 0 is a thread of this one."""
    cache: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: none)")] = None
    """Decode all pictures once into files in this folder, and train from those."""
    on_bad_image: Literal["stop", "skip"] = "stop"
    """What a picture does that cannot be decoded: end the run, or be told and replaced by the next one."""
