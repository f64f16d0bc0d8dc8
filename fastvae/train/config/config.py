"""What a training run is told: one flag for each field."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from fastvae.data.config import DataConfig
from fastvae.models import PRESETS, Preset
from fastvae.ops import Backend

Precision = Literal["auto", "fp32", "bf16", "fp16", "fp64"]
Execution = Literal["auto", "eager", "traced", "compiled"]
RateSchedule = Literal["constant", "cosine", "step", "iwae"]
BetaSchedule = Literal["constant", "warmup", "cyclical"]

SAMPLED = ("iwae", "dreg", "stl")  # the objectives of K samples
WITH_BETA = ("elbo", "capacity", "tcvae")
ObjectiveName = Literal["elbo", "iwae", "dreg", "stl", "capacity", "free-bits", "tcvae"]


def _switch(words: Sequence[str]) -> bool:
    if list(words) not in ([], ["True"], ["False"]):
        raise ValueError(f"expected True, False or nothing, which is True, but got {' '.join(words)}")
    return list(words) != ["False"]


# A switch that the preset decides where it is not given.
_SWITCH = tyro.constructors.PrimitiveConstructorSpec(
    nargs="*",
    metavar="[{True,False}]",
    instance_from_str=_switch,
    is_instance=lambda value: value is None or isinstance(value, bool),
    str_from_instance=lambda value: [str(value)],
)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(DataConfig):
    """Train a variational autoencoder.

    The defaults train a small one on scikit-learn's digits, offline. Values left at "preset's" come from the preset.
    """

    preset: Literal[
        "basic", "keras", "deep", "leaky", "gaussian", "classic", "iwae", "conv28", "conv64", "resnet64", "ladder"
    ] = "classic"
    """Network and training recipe; the README has the table."""
    epochs: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: the preset's)")] = None
    """Passes over the training set."""
    max_steps: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: none)")] = None
    """Steps after which the run ends, if its epochs have not ended it."""
    time_budget: Annotated[float | None, tyro.conf.arg(metavar="SECONDS", help_behavior_hint="(default: none)")] = None
    """Seconds of training and evaluation after which this process ends the run; --resume gives it as many again."""
    patience: Annotated[int | None, tyro.conf.arg(metavar="EPOCHS", help_behavior_hint="(default: none)")] = None
    """End the run when the test loss has not been below its best for so many epochs."""
    batch_size: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: the preset's)")] = None
    """Global batch size: all processes together."""
    lr: Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="(default: the preset's)")] = None
    """Learning rate."""
    optimizer: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: the preset's)")] = None
    """adam, adamw, rmsprop, sgd, or another class of torch.optim."""
    optimizer_options: Annotated[dict[str, float], tyro.conf.arg(metavar="KEY VALUE ...")] = field(default_factory=dict)
    """Options of that class beside the preset's own, such as weight_decay 0.01; 0 or 1 for a switch."""
    schedule: Annotated[
        RateSchedule | None,
        tyro.conf.arg(metavar="{constant,cosine,step,iwae}", help_behavior_hint="(default: the preset's)"),
    ] = None
    """Of the learning rate: constant, cosine (ends at 0), step (--decay every --decay-epochs), iwae (that paper's)."""
    warmup_steps: int = 0
    """Steps in which the learning rate rises in a line to its schedule."""
    decay: Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="(default: 0.1)")] = None
    """Factor of --schedule step."""
    decay_epochs: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: none)")] = None
    """Epochs between the decays of --schedule step."""
    accumulate: int = 1
    """Parts that a batch is computed in, one after the other, for less memory; the step is the same."""
    clip_norm: Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="(default: none)")] = None
    """Largest Euclidean norm of the gradient of what is minimised: the sum over the batch, or the mean, by preset."""
    ema: Annotated[float | None, tyro.conf.arg(metavar="DECAY", help_behavior_hint="(default: none)")] = None
    """Keep a moving average of the weights, 0.999 say, and evaluate and save it as the run's result."""
    latent_dim: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: the preset's)")] = None
    """Dimensions of z; of the presets for pictures, its channels at each place."""
    width: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: the preset's)")] = None
    """Channels of the first layer, for the presets for pictures."""
    binarize: Annotated[bool | None, _SWITCH, tyro.conf.arg(help_behavior_hint="(default: the preset's)")] = None
    """Draw the training pixels black or white anew at each step, and those for testing once, by the seed."""
    beta: float = 1.0
    """Factor of the KL term (beta-VAE), of its distance from the capacity, or of the total correlation (tcvae)."""
    beta_schedule: Annotated[
        BetaSchedule | None,
        tyro.conf.arg(metavar="{constant,warmup,cyclical}", help_behavior_hint="(default: the preset's)"),
    ] = None
    """warmup: from 0 to --beta in --beta-steps; cyclical: cycles of --beta-steps, the first half of each a warm-up."""
    beta_steps: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: the preset's)")] = None
    """Steps of --beta-schedule's warm-up or cycle."""
    objective: ObjectiveName = "elbo"
    """What is minimised: fastvae.objectives has them. The test loss is the negative ELBO for all."""
    samples: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: 5)")] = None
    """K of the objectives iwae, dreg and stl."""
    free_bits: Annotated[float | None, tyro.conf.arg(metavar="NATS", help_behavior_hint="(default: none)")] = None
    """Of each latent dimension, for --objective free-bits."""
    capacity: Annotated[float | None, tyro.conf.arg(metavar="NATS", help_behavior_hint="(default: none)")] = None
    """Of the KL, for --objective capacity."""
    capacity_steps: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: none)")] = None
    """Steps in which the capacity rises in a line from 0."""
    precision: Precision = "auto"
    """Type of the matrix products; weights, losses and optimiser state stay in fp32 (in fp64 for fp64)."""
    tf32: bool = False
    """Let a GPU round the inputs of fp32 products to TF32."""
    deterministic: bool = False
    """The same command gives the same bits on the same machine: torch's deterministic algorithms, and no trial."""
    execution: Execution = "auto"
    """How a step is run: eager autograd, its operators traced once, or those compiled by TorchInductor."""
    replay: Literal["auto", "no"] = "auto"
    """On a GPU, replay steps as CUDA graphs where they can be captured; no: launch each from Python."""
    autotune: bool = True
    """Let a short timed trial choose what precision and execution leave open; else fixed defaults do."""
    backend: Backend = "auto"
    """Which fused operations: triton on a GPU and native on a CPU where there is a choice."""
    device: str = "auto"
    """auto, cpu or cuda."""
    nproc: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: 1)")] = None
    """Processes on this machine; torchrun's own --nproc-per-node does the same."""
    max_restarts: int = 0
    """Times that all processes start again from the last checkpoint in --out when one of them fails or is killed."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """What each of several processes keeps: all weights, or a part of each (torch's fully_shard), for large models."""
    compress: Literal["no", "bf16"] = "no"
    """What gradients are sent as between processes: as they are, or half of the bytes, rounded."""
    seed: int = 0
    """Decides initial weights, order of the batches and noise."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: runs/PRESET-DATA-TIME)")] = (
        None
    )
    """The run's folder."""
    profile: bool = False
    """Write a torch.profiler trace of steps 20 to 29 into the run's folder, and tell where a step's time goes."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """What a step does whose loss or gradient is not finite: end the run as it was before, or change nothing."""
    checkpoint_every: int = 1000
    """Steps between checkpoints; one is always written at the end and on Ctrl-C."""
    resume: bool = False
    """Go on from the newest checkpoint in --out."""

    @property
    def recipe(self) -> Preset:
        """The preset by value."""
        return PRESETS[self.preset]

    @property
    def dials(self) -> tuple[float, float]:
        """Beta and capacity, where no schedule changes them."""
        return self.beta, self.capacity or 0.0

    def objective_options(self, dataset_size: int) -> dict[str, float]:
        """What the objective takes beside its dials."""
        if self.objective in SAMPLED:
            return {"samples": self.samples or 5}
        if self.objective == "free-bits":
            assert self.free_bits is not None
            return {"free_bits": self.free_bits}
        return {"dataset_size": dataset_size} if self.objective == "tcvae" else {}

    def steps(self, epoch_steps: int) -> int:
        """Steps of the whole run, for so many in an epoch."""
        assert self.epochs is not None
        steps = self.epochs * epoch_steps
        return steps if self.max_steps is None else min(steps, self.max_steps)
