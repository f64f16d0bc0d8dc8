"""Settings of the data layer: which images, how they are read, and which loader delivers them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastvae.utils.settings import setting

_PIXELS = "its model has seen the images so"


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The images of a run, and the way they are read."""

    data: str = setting(
        "digits",
        group="data",
        metavar="NAME",
        help="The images: digits (included), mnist, fashion-mnist, kmnist or cifar10 (downloaded); a folder, a list or "
        "tar shards of pictures; a .npy, .npz or .h5 file; a folder of Hugging Face's datasets; or torchvision:NAME.",
        fixes_numbers=True,
        kept="it is a run of those images",
        decides_images=True,
    )
    data_dir: Path | None = setting(
        None,
        group="data",
        metavar="DIR",
        shown_default="$FASTVAE_DATA, or download",
        help="Folder that holds the data set's files.",
        describes_machine=True,
    )
    image_size: int | None = setting(
        None,
        group="data",
        metavar="PIXELS",
        shown_default="from the preset, or as the images are",
        help="Height and width of the images that the model sees: the central square of each image is resized to "
        "this. The presets for pictures take 4 to 7 times a power of two: 28, 32, 40, 48, 56, 64, 80, 96, 112, 128 ... "
        "256.",
        low=1,
        from_preset=True,
        fixes_numbers=True,
        kept=_PIXELS,
        decides_images=True,
    )
    channels: int = setting(
        3,
        group="data",
        metavar="{1,3}",
        help="Channels that pictures are decoded to: 3 for RGB, 1 for grey.",
        fixes_numbers=True,
        kept=_PIXELS,
        decides_images=True,
    )
    crop: Literal["center", "random"] = setting(
        "center",
        group="data",
        help="Crop of training images to --image-size: center; or random, which reads the images larger by 1/7 and "
        "crops each at a new random place in every epoch.",
        fixes_numbers=True,
        kept=_PIXELS,
        affects_speed=True,
        decides_images=True,
    )
    flip: bool = setting(
        False,
        group="data",
        help="Mirror a random half of the training images, drawn again in every epoch.",
        fixes_numbers=True,
        kept=_PIXELS,
        affects_speed=True,
    )
    # The loaders deliver the same images in the same order (DALI's differ by rounding), and "auto" follows the
    # machine's memory: a run may resume with another one. Autotuning's key has the loader that was chosen.
    loader: Literal["auto", "resident", "dali", "torch"] = setting(
        "auto",
        group="data",
        help="Loader that delivers the batches: resident keeps all images on the device, dali decodes pictures by "
        "NVIDIA DALI, torch uses torch's DataLoader. The batches are the same.",
    )
    workers: int | None = setting(
        None,
        group="data",
        shown_default="number of cores",
        help="Processes that decode pictures for --loader torch; 0 decodes in a thread of the training process.",
        low=0,
    )
    cache: Path | None = setting(
        None,
        group="data",
        metavar="DIR",
        shown_default="none",
        help="Folder for decoded images: pictures are decoded once into files there, and trained from those.",
        describes_machine=True,
    )
    on_bad_image: Literal["stop", "skip"] = setting(
        "stop",
        group="data",
        help="Action for an image that cannot be decoded: stop the run; or skip, which warns and uses the next image.",
        fixes_numbers=True,
        at_resume="pictures that cannot be decoded are treated otherwise",
        decides_images=True,
    )
