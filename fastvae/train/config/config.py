"""The settings of a training run: one flag for each field."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fastvae.data.config import DataConfig
from fastvae.utils.machine import Backend
from fastvae.utils.settings import Given, check_ranges, check_types, in_words_of_caller, setting

from .model import ModelConfig, ObjectiveConfig
from .optimisation import OptimisationConfig

Precision = Literal["auto", "fp32", "bf16", "fp16", "fp64"]
Execution = Literal["auto", "eager", "traced", "compiled"]
_COSINE = "the cosine of the learning rate is that of the new length"


def _is_cosine(config: Any) -> bool:
    """Tell whether the length of the run decides its learning rates: a cosine ends where the run does."""
    return bool(config.schedule == "cosine")


# The fields of the last base come first.
@dataclass(frozen=True, kw_only=True)
class TrainConfig(OptimisationConfig, ObjectiveConfig, ModelConfig, DataConfig, Given):
    """Train a variational autoencoder.

    The defaults train a small one on scikit-learn's digits, offline.
    """

    def __post_init__(self) -> None:
        """Check each value by itself. Raises InputError naming the setting, its value and the remedy."""
        with in_words_of_caller(TrainConfig):
            check_types(self)
            check_ranges(self)

    # Precision, TF32, execution, replay and backend change rounding alone: a run may resume on another machine.
    precision: Precision = setting(
        "auto",
        group="precision and speed",
        help="Data type of matrix products: fp32, bf16, fp16 or fp64; auto chooses between fp32 and bf16. Weights, "
        "losses, optimiser state and the test pass stay in fp32, or all are fp64.",
        affects_speed=True,
    )
    tf32: bool = setting(
        False,
        group="precision and speed",
        help="Let a GPU round the inputs of fp32 matrix products to TF32.",
        affects_speed=True,
    )
    deterministic: bool = setting(
        False,
        group="precision and speed",
        help="Make the same command give the same bits on the same machine: torch's deterministic algorithms, and no "
        "autotuning.",
    )
    execution: Execution = setting(
        "auto",
        group="precision and speed",
        help="Way of running a step: eager autograd, a traced graph, or a graph compiled by TorchInductor.",
        affects_speed=True,
    )
    replay: Literal["auto", "no"] = setting(
        "auto",
        group="precision and speed",
        help="On a GPU: auto replays steps as CUDA graphs where they can be captured; no launches each kernel from "
        "Python.",
        affects_speed=True,
    )
    autotune: bool = setting(
        True,
        group="precision and speed",
        help="Choose what --precision and --execution leave open by a short timed trial (none for runs of seconds), "
        "and use fewer threads for dense layers while other programs keep cores busy; otherwise by fixed defaults, on "
        "all cores.",
    )
    backend: Backend = setting(
        "auto",
        group="precision and speed",
        help="Fused operators to use: auto takes triton on a GPU and native (C++) on a CPU, where they are installed; "
        "reference is plain torch.",
        affects_speed=True,
        describes_machine=True,
        of_each_start=True,
    )
    device: str = setting(
        "auto",
        group="process",
        metavar="{auto,cpu,cuda}",
        choices=("auto", "cpu", "cuda"),
        help="Device to train on; auto takes a GPU if there is one.",
        describes_machine=True,
        of_each_start=True,
    )
    nproc: int | None = setting(
        None,
        group="process",
        shown_default="1",
        help="Number of processes to start on this machine. torchrun's --nproc-per-node does the same.",
        describes_machine=True,
        of_each_start=True,
    )
    max_restarts: int = setting(
        0,
        group="process",
        help="Number of times that all processes restart from the last checkpoint in --out if one fails or is killed.",
        low=0,
        describes_machine=True,
        of_each_start=True,
    )
    parallel: Literal["ddp", "fsdp"] = setting(
        "ddp",
        group="process",
        help="Data parallelism of several processes: ddp keeps all weights in each; fsdp keeps a shard of the weights "
        "in each (torch's fully_shard), for large models.",
        affects_speed=True,
    )
    # As with --precision, rounding alone.
    compress: Literal["no", "bf16"] = setting(
        "no",
        group="process",
        help="Precision in which processes exchange gradients: no leaves them unchanged; bf16 rounds them to half the "
        "bytes.",
        affects_speed=True,
    )
    epochs: int | None = setting(
        None,
        group="run",
        help="Passes over the training set.",
        low=1,
        from_preset=True,
        fixes_numbers=_is_cosine,
        at_resume=_COSINE,
    )
    max_steps: int | None = setting(
        None,
        group="run",
        shown_default="no limit",
        help="End the run after this many steps if its epochs have not ended it before.",
        low=1,
        fixes_numbers=_is_cosine,
        at_resume=_COSINE,
    )
    time_budget: float | None = setting(
        None,
        group="run",
        metavar="SECONDS",
        shown_default="no limit",
        help="End the run after this many seconds of training and evaluation in this process. --resume grants as many "
        "again.",
        low=0,
        exclusive=True,
    )
    patience: int | None = setting(
        None,
        group="run",
        metavar="EPOCHS",
        shown_default="no limit",
        help="End the run when the test loss has not improved for this many epochs.",
        low=1,
    )
    seed: int = setting(
        0,
        group="run",
        help="Random seed of the initial weights, the order of the batches and the noise.",
        low=0,
        high=2**63,
        fixes_numbers=True,
        kept="its noise and the order of its batches are drawn from it",
    )
    out: Path | None = setting(
        None,
        group="run",
        metavar="DIR",
        shown_default="runs/PRESET-DATA-TIME",
        help="Folder that the run writes to.",
        describes_machine=True,
        of_each_start=True,
    )
    resume: bool | Path = setting(
        False,
        group="run",
        metavar="[DIR]",
        help="Resume the run in this folder, or in --out, from its newest checkpoint, with the run's own settings. "
        "Flags given beside it change settings from there on, where the run can go on with them.",
        describes_machine=True,
        of_each_start=True,
    )
    init_from: Path | None = setting(
        None,
        group="run",
        metavar="RUN|FILE",
        shown_default="weights drawn by --seed",
        help="Start from the weights of a run (its newest checkpoint; their moving average if it keeps one) or of a "
        ".safetensors or .pt file, with a new optimiser.",
        describes_machine=True,
    )
    checkpoint_every: int = setting(
        1000,
        group="run",
        help="Steps between checkpoints. One more is written at the end and on Ctrl-C.",
        low=1,
    )
    on_nonfinite: Literal["stop", "skip"] = setting(
        "stop",
        group="run",
        help="If a step's loss or gradient is not finite: stop, leaving the run as it was before that step; or skip "
        "the step.",
    )
    profile: bool = setting(
        False,
        group="run",
        help="Write a torch.profiler trace of steps 20 to 29 into the run's folder, and print how a step's time is "
        "spent.",
        of_each_start=True,
    )
