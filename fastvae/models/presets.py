"""Presets, each a network with its recipe: five tutorials', the classic one, the IWAE paper's, and for pictures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import nn


def _relu() -> "nn.Module":
    from torch import nn  # noqa: PLC0415 -- here and below: the presets are read by --help, which does without torch

    return nn.ReLU()


def _leaky_relu() -> "nn.Module":
    from torch import nn  # noqa: PLC0415

    return nn.LeakyReLU(0.2)


def _tanh() -> "nn.Module":
    from torch import nn  # noqa: PLC0415

    return nn.Tanh()


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A system as its author wrote it: network, loss, optimiser, batch size, epochs.

    The loss that is minimised is ``loss_weight`` times the negative ELBO, summed or averaged over the batch. The
    reported loss is always the negative ELBO in nats per sample.
    """

    summary: str
    network: Literal["mlp", "conv", "resnet", "ladder"] = "mlp"
    hidden: tuple[int, ...] = ()  # of an MLP
    width: int | None = None  # of the other networks: channels after the first halving
    flat: bool = False  # one latent vector instead of a grid of them
    image_size: int | None = None  # None: images keep their size
    latent_dim: int  # for pictures: channels at each place of the grid
    activation: "Callable[[], nn.Module]" = _relu
    packed: bool = False
    likelihood: str = "bernoulli"  # one that the network's builder knows
    glorot: bool = False
    reduction: Literal["sum", "batchmean"] = "sum"
    loss_weight: float = 1.0
    optimizer: str = "adam"  # a class of torch.optim, in small letters
    optimizer_options: Mapping[str, float] = field(default_factory=dict)
    lr: float = 1e-3
    schedule: Literal["constant", "cosine", "iwae"] = "constant"
    beta_warmup: int | None = None  # steps
    binarize: bool = False
    batch_size: int = 128
    epochs: int = 10


_of_colour = partial(
    Preset,
    width=32,
    image_size=64,
    latent_dim=16,
    likelihood="mixture",
    reduction="batchmean",
    # With the full KL from the start, the mixture itself models the colours, and hardly any information goes through z.
    beta_warmup=1000,
    lr=3e-4,
    schedule="cosine",
    batch_size=64,
    epochs=20,
)
_PRESETS = {
    "basic": Preset(
        # The author leaves sizes, rate, batch and epochs to the reader; these are classic's.
        summary="one packed head, split in two",
        hidden=(400,),
        latent_dim=20,
        packed=True,
    ),
    "keras": Preset(
        # Batch size and epochs are not the author's, who gives none. The rest is what Keras does by default:
        # RMSprop with rho 0.9 and epsilon 1e-7, Glorot-uniform weights, zero biases.
        summary="two latent dimensions, RMSprop",
        hidden=(256,),
        latent_dim=2,
        glorot=True,
        reduction="batchmean",
        optimizer="rmsprop",
        optimizer_options={"alpha": 0.9, "eps": 1e-7},
        epochs=30,
    ),
    "deep": Preset(
        summary="two hidden layers",
        hidden=(400, 200),
        latent_dim=20,
        epochs=20,
    ),
    "leaky": Preset(
        summary="two hidden layers, LeakyReLU, 200 latent dimensions",
        hidden=(400, 400),
        latent_dim=200,
        activation=_leaky_relu,
        batch_size=100,
        epochs=30,
    ),
    "gaussian": Preset(
        # The author drops the factor 1/2 of both terms, which doubles the loss.
        summary="squared error on a sigmoid mean",
        hidden=(200,),
        latent_dim=20,
        likelihood="gaussian",
        reduction="batchmean",
        loss_weight=2.0,
        lr=3e-4,
        batch_size=32,
        epochs=30,
    ),
    "classic": Preset(
        summary="the network of pytorch/examples",
        hidden=(400,),
        latent_dim=20,
    ),
    "iwae": Preset(
        # Burda, Grosse & Salakhutdinov 2016, "Importance weighted autoencoders", section 5: the network with one
        # stochastic layer. With the objective elbo its VAE, published to end at a test -log p(x) of 86.76 nats (5,000
        # samples); with the objective iwae its IWAE. That the gradient is summed over the batch, which an epsilon
        # of this size shows, is from the authors' program (github.com/yburda/iwae). That program departs from the
        # paper elsewhere, and is not followed there: beta_1 0.99, second moments that begin at 1, biases of the
        # pixels that begin at their logits, no shuffling, and 400 training images kept out.
        summary="one stochastic layer of the IWAE paper, on binarised images",
        hidden=(200, 200),
        latent_dim=50,
        activation=_tanh,
        glorot=True,
        optimizer_options={"eps": 1e-4},
        schedule="iwae",
        binarize=True,
        batch_size=20,
        epochs=sum(3**i for i in range(8)),
    ),
    "conv28": Preset(
        summary="convolutions for 28 pixels, binarised",
        network="conv",
        flat=True,
        width=24,
        image_size=28,
        latent_dim=32,
        reduction="batchmean",
        binarize=True,
        lr=2e-3,
        schedule="cosine",
        epochs=20,
    ),
    "conv64": _of_colour(network="conv", summary="convolutions for colour pictures of 64 pixels"),
    "resnet64": _of_colour(network="resnet", summary="residual blocks for colour pictures of 64 pixels"),
    "ladder": _of_colour(
        network="ladder",
        summary="two levels of latents, the prior of one learned, for colour pictures of 64 pixels",
    ),
}
PRESETS: Mapping[str, Preset] = MappingProxyType(_PRESETS)
"""The presets by their names on the command line."""
