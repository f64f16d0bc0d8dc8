"""Settings of the optimiser and of the learning rate."""

from dataclasses import dataclass
from typing import Literal

from fastvae.utils.settings import setting

RateSchedule = Literal["constant", "cosine", "step", "iwae"]
_RATE = "the optimiser keeps its state"


@dataclass(frozen=True, kw_only=True)
class OptimisationConfig:
    """The optimiser, its learning rate and its gradients."""

    batch_size: int | None = setting(
        None,
        group="optimisation",
        help="Images per step: the global batch, of all processes together.",
        low=1,
        from_preset=True,
        fixes_numbers=True,
        at_resume="the order of the batches changes, and so do the steps in an epoch",
        affects_speed=True,
    )
    lr: float | None = setting(
        None,
        group="optimisation",
        help="Learning rate.",
        low=0,
        exclusive=True,
        from_preset=True,
        fixes_numbers=True,
        at_resume=_RATE,
    )
    optimizer: str | None = setting(
        None,
        group="optimisation",
        metavar="NAME",
        help="Optimiser: adam, adamw, rmsprop, sgd, or another class of torch.optim.",
        from_preset=True,
        fixes_numbers=True,
        kept="its optimiser's state is of that one",
        affects_speed=True,
    )
    optimizer_options: dict[str, float] = setting(
        {},
        group="optimisation",
        metavar="KEY VALUE ...",
        shown_default="from the preset",
        help="Arguments of the optimiser's class, such as weight_decay 0.01; 0 or 1 for a switch. They are added to "
        "those of the preset.",
        fixes_numbers=True,
        kept="its optimiser's state is of that one",
        affects_speed=True,
    )
    schedule: RateSchedule | None = setting(
        None,
        group="optimisation",
        help="Learning-rate schedule: constant; cosine, down to 0; step, multiplied by --decay every --decay-epochs; "
        "or iwae, that of the IWAE paper.",
        from_preset=True,
        fixes_numbers=True,
        at_resume=_RATE,
        affects_speed=True,
    )
    warmup_steps: int = setting(
        0,
        group="optimisation",
        help="Steps in which the learning rate rises linearly to its schedule.",
        low=0,
        fixes_numbers=True,
        at_resume=_RATE,
    )
    decay: float | None = setting(
        None,
        group="optimisation",
        shown_default="0.1",
        help="Multiply the learning rate by this at each step of --schedule step.",
        low=0,
        exclusive=True,
        fixes_numbers=True,
        at_resume=_RATE,
    )
    decay_epochs: int | None = setting(
        None,
        group="optimisation",
        shown_default="none",
        help="Epochs between two decays of --schedule step.",
        low=1,
        fixes_numbers=True,
        at_resume=_RATE,
    )
    # A step's sums are the same in any number of parts. An objective that is a statistic of the part at hand depends on
    # parts times processes; the number of processes may change at --resume, and --accumulate can make up for it.
    accumulate: int = setting(
        1,
        group="optimisation",
        help="Compute each batch in this many parts, one after the other, to save memory. The step is the same, except "
        "with --objective tcvae and with models of your own that couple the images of a batch; the run says so.",
        low=1,
        affects_speed=True,
    )
    clip_norm: float | None = setting(
        None,
        group="optimisation",
        shown_default="no clipping",
        help="Clip the gradient to this Euclidean norm. It is the gradient of the loss as the preset reduces it: a sum "
        "or a mean over the batch.",
        low=0,
        exclusive=True,
        fixes_numbers=True,
        at_resume="the optimiser keeps its state",
        affects_speed=True,
    )
    ema: float | None = setting(
        None,
        group="optimisation",
        metavar="DECAY",
        shown_default="no average",
        help="Keep an exponential moving average of the weights with this decay, 0.999 for example; evaluate it and "
        "save it as the run's result. After n steps the decay is at most (1 + n) / (10 + n), so that the average soon "
        "forgets the initial weights.",
        low=0,
        high=1,
        example="0.999",
        fixes_numbers=True,
        kept="its average is of all steps so far",
        affects_speed=True,
    )
