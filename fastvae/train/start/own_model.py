"""Checks of a user's own model, before anything else of a run happens."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from fastvae.data import Dataset, Loader
from fastvae.models import VAE
from fastvae.models.conv import has_convolutions
from fastvae.models.known import is_known
from fastvae.ops import Noise
from fastvae.train.checkpoint.rng import preserve_rng_state
from fastvae.train.config import ResolvedConfig
from fastvae.train.distributed.world import World
from fastvae.train.inputs import check_depth, check_own_pixels
from fastvae.train.step.copy_model import copy_model
from fastvae.train.step.execution import Step
from fastvae.train.step.loss import StepLoss, StepScalars
from fastvae.train.step.memory_format import choose_memory_format, keeping_nchw
from fastvae.utils.errors import InputError
from fastvae.utils.settings import changed, flag
from fastvae.utils.terminal import Terminal

from .model_sizes import check_sizes
from .tensor_forms import check_forms

_LOW = (torch.bfloat16, torch.float16)
# Steps of a run. Importing Dynamo and reading a model takes 2 to 5 s, and a recorded step saves a few tenths of a
# millisecond to a millisecond of it.
_WORTH_RECORDING = 1000


@contextmanager
def prepared(
    model: VAE, config: ResolvedConfig, dataset: Dataset, world: World, console: Terminal
) -> Iterator[tuple[ResolvedConfig, Dataset, str | None]]:
    """Check a user's own model, and decide how its steps are run and how its images lie in memory.

    Yields:
        The settings; the data set; and the reason if the steps must be eager, or None.

    Raises:
        InputError: the model cannot be trained, or not as the settings ask.
    """
    check_model(model)
    _check_no_preset_sizes(config)
    check_own_pixels(model.likelihood, dataset, console)
    check_depth(dataset, model.likelihood)
    config, why_eager, is_pure = settle_execution(config, model, dataset)
    if not is_pure:  # a trial of channels_last would run the model's Python
        with keeping_nchw(model):
            yield config, dataset, why_eager
        return
    check_sizes(model, dataset, world.device, console)
    # On the CPU all ranks find the same, and a model that is to be sharded may be too large for one GPU.
    where = world.device if world.size == 1 else torch.device("cpu")
    with choose_memory_format(model, dataset, config, where) as (laid, told):
        if told is not None:
            console.print(f"fastvae: {told}")
        yield config, laid, None


def check_model(model: VAE) -> None:
    """Refuse a model that cannot be trained as a loop in plain torch would train it.

    Raises:
        InputError: it is not a VAE; a lazy layer has not run yet; a parameter is on the meta device, complex, of low
            precision or an inference tensor; the parameters' types differ; none is trainable; gradients would be
            sparse; its state dict holds something that is not a tensor; or a tensor does not lie in memory as a
            run needs it (:func:`.check_forms`).
    """
    if not isinstance(model, VAE):
        raise InputError(
            f"the model is of type {type(model).__name__}, not fastvae.VAE: wrap an encoder and a decoder, "
            "fastvae.VAE(encoder, decoder, latent_shape=...)"
        )
    named = [*model.named_parameters(), *model.named_buffers()]
    for name, tensor in named:
        if is_lazy(tensor):
            raise InputError(
                f"{name} belongs to a lazy layer that has not run yet: call model.loss(images[:2]) once before training"
            )
        if tensor.is_meta:
            raise InputError(f"{name} is on the meta device, without values: materialize the model before")
        if tensor.is_inference():
            raise InputError(
                f"{name} was made under torch.inference_mode, so it has no gradient: build the model outside it"
            )
    check_forms(dict(model.named_parameters()), dict(model.named_buffers()))
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not trained:
        raise InputError("no parameter of the model requires a gradient, so nothing can be trained")
    for name, parameter in trained.items():
        if parameter.is_complex():
            raise InputError(
                f"{name} is complex, but parameters must be real: keep two, and use torch.complex in forward"
            )
    _check_types({name: parameter for name, parameter in named if parameter.is_floating_point()})
    for name, module in model.named_modules():
        if getattr(module, "sparse", False) is True:
            raise InputError(f"{name} gives sparse gradients, which fastvae does not take: build it with sparse=False")
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise InputError(
                f"the model's state dict has {name}, a {type(value).__name__}, but checkpoints hold tensors alone: "
                "keep it in a buffer"
            )


def _check_no_preset_sizes(config: ResolvedConfig) -> None:
    """Refuse the sizes of a preset's network, which a model of the user's own does not have."""
    for name in ("latent_dim", "width"):
        if name in config.given:
            raise InputError(
                f"{flag(name)} is {getattr(config, name)}, but a model of your own has the sizes that it was built "
                "with: leave it out"
            )


def _check_types(tensors: dict[str, Tensor]) -> None:
    """Refuse parameters and buffers in low precision, and a mixture of fp32 and fp64."""
    for name, tensor in tensors.items():
        if tensor.dtype in _LOW:
            raise InputError(
                f"{name} is {tensor.dtype}, but weights are kept in fp32: use model.float(), and --precision bf16 to "
                "compute in low precision"
            )
    types = {tensor.dtype: name for name, tensor in tensors.items()}
    if len(types) > 1:
        said = " and ".join(f"{name} is {dtype}" for dtype, name in types.items())
        raise InputError(f"{said}, but all must be of one type: use model.float() or model.double()")


def is_double(model: VAE) -> bool:
    """Return whether a model's weights are in fp64, so that a run computes in it unless told otherwise."""
    return next(model.parameters()).dtype == torch.float64


def settle_execution(config: ResolvedConfig, model: VAE, dataset: Dataset) -> tuple[ResolvedConfig, str | None, bool]:
    """Decide whether the steps of a user's own model can be recorded. Its Python is read for that, but not run.

    Returns:
        The settings, with ``execution="eager"`` and the precision of the weights where the steps cannot be recorded and
        the settings leave these open; the reason for that choice, or None; and whether the forward pass is known to do
        nothing but compute.

    Raises:
        InputError: the settings ask for an execution that the model cannot have.
    """
    if config.precision == "auto" and is_double(model):
        config = changed(config, ResolvedConfig, precision="fp64")
    if config.parallel == "fsdp" or (config.execution == "eager" and not has_convolutions(model)):
        return config, None, is_known(model)
    why = _unrecordable(config, model, dataset)
    if why is None or config.execution == "eager":
        return config, None, why is None
    if config.execution != "auto":
        raise InputError(f"execution is {config.execution}, but {why}: use eager")
    precision = "fp32" if config.precision == "auto" else config.precision
    return changed(config, ResolvedConfig, execution="eager", precision=precision), why, False


def _unrecordable(config: ResolvedConfig, model: VAE, dataset: Dataset) -> str | None:
    options = config.objective_options(len(dataset.train))
    loss = StepLoss(model, config.backend, config.objective, options, binarize=bool(config.binarize))
    step = Step(loss, "traced", nullcontext)
    if step.is_known:
        return None
    rows = min(config.batch_size, len(dataset.train))
    steps = config.steps(-(-len(dataset.train) // config.batch_size))
    # A run that was found to be eager resumes as such, and with the same layout of its images.
    if config.execution in ("auto", "eager") and steps < _WORTH_RECORDING:
        return f"a run of {steps} steps is too short to be worth recording a model of your own"
    device = next(model.parameters()).device
    images = torch.zeros((rows, *dataset.shape), dtype=dataset.train.dtype, device=device)
    one = torch.ones((), device=device, dtype=next(model.parameters()).dtype)
    return step.capture(images, Noise(0, device=device).state, 0, StepScalars(one, one, one))


def check_last_batch(model: VAE, loader: Loader, config: ResolvedConfig, world: World) -> None:
    """Refuse batches of one image that BatchNorm in training mode cannot normalize, before an epoch ends with one.

    Collective. Raises InputError, on all ranks.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.training]
    with world.raise_together():
        if norms and 1 in _parts(loader, config.accumulate):
            _check_one_row(model, loader.first(1))


def _parts(loader: Loader, micro_batches: int) -> Iterator[int]:
    """Yield the rows that a forward pass of this rank gets, in the first and in the last step of an epoch."""
    for step in (0, len(loader) - 1):
        share = loader.share(step)
        rows = share.end - share.first
        ends = [number * rows // micro_batches for number in range(micro_batches + 1)]
        yield from (end - start for start, end in itertools.pairwise(ends))


def _check_one_row(model: VAE, image: Tensor) -> None:
    try:
        with preserve_rng_state(image.device), torch.no_grad():
            copy_model(model).to(image.device).loss(image)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            return
        raise InputError(
            "an epoch has a batch with one image for a forward pass, which BatchNorm cannot normalize: "
            "use another batch size, or leave out an image"
        ) from error
    except Exception:
        pass
