"""The model of a preset, for the images at hand."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fastvae.data import Dataset
from fastvae.models import VAE, build
from fastvae.ops import Noise
from fastvae.train.config import ResolvedConfig
from fastvae.train.distributed.world import World
from fastvae.utils.errors import InputError
from fastvae.utils.files import reason
from fastvae.utils.machine import check_fits, memory

_COPIES = 3  # of the weights' memory, at least, to train them: the weights and two moments
_MOST = 1024  # bytes of activations for each value of an image, above what any preset takes: 560 for conv64 on grey
_RELATIVE = {"fp64": 2.0, "bf16": 0.5, "fp16": 0.5}  # size of an activation; a trial of precisions runs fp32 as well


def build_preset(config: ResolvedConfig, dataset: Dataset, world: World) -> VAE:
    """Build the preset's model, initialized by the seed. Raises InputError for images or sizes that it cannot have."""
    shape = " x ".join(map(str, dataset.shape))
    try:
        with torch.device("meta"):  # which takes no memory
            outline = build(config.recipe, dataset.shape, config.latent_dim, config.width)
        _check_memory(outline, config, dataset, world)
        torch.manual_seed(config.seed)
        return build(config.recipe, dataset.shape, config.latent_dim, config.width)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"preset {config.preset} cannot have images of {shape}: {error}") from error
    except RuntimeError as error:  # torch's, for sizes beyond the address space
        raise InputError(
            f"preset {config.preset} cannot have --latent-dim {config.latent_dim} and images of {shape} "
            f"({reason(error)}): give smaller ones"
        ) from error


def _check_memory(outline: VAE, config: ResolvedConfig, dataset: Dataset, world: World) -> None:
    """Refuse weights, and on the CPU activations of a step, that this machine's memory could not hold."""
    shape = " x ".join(map(str, dataset.shape))
    is_cpu = world.device.type == "cpu"
    size = sum(parameter.numel() * parameter.element_size() for parameter in outline.parameters())
    check_fits(
        size * (_COPIES if is_cpu else 1),
        f"to train preset {config.preset} on images of {shape}",
        "give a smaller --image-size, --latent-dim or --width",
    )
    rows = max(1, min(config.batch_size, len(dataset.train)) // config.accumulate // world.size)
    # A GPU's allocator raises an error; a CPU's gives the memory, and the kernel kills the process when it is used.
    if is_cpu and rows * math.prod(dataset.shape) * _MOST > memory():
        check_fits(
            int(rows * activation_bytes(config, dataset.shape) * _RELATIVE.get(config.precision, 1)),
            f"a step of preset {config.preset} on {rows} images of {shape}",
            "give a smaller --batch-size or --image-size, or --accumulate parts of a batch",
        )


def activation_bytes(config: ResolvedConfig, shape: Sequence[int]) -> int:
    """Return the bytes that the forward pass of a preset on one image (C, H, W) keeps for the backward pass, in fp32.

    The model is built and run on fake tensors, which have no values: autograd keeps as many of them as of real ones.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: PLC0415 -- the first use takes two seconds

    kept: dict[int, Tensor] = {}  # by storage, as several tensors may be views of one

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with FakeTensorMode(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model = build(config.recipe, tuple(shape), config.latent_dim, config.width)
        model.loss(torch.zeros(1, *shape, dtype=torch.uint8), noise=Noise(0))
    for parameter in model.parameters():
        kept.pop(parameter.untyped_storage()._cdata, None)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
