"""Settings of the model and of the objective that trains it."""

from dataclasses import dataclass
from typing import Literal

from fastvae.models import OBJECTIVES, PRESETS, Preset
from fastvae.models.objective_specs import names_with
from fastvae.utils.settings import setting

BetaSchedule = Literal["constant", "warmup", "cyclical"]
_SHAPE = "its weights are those of that network"
_LOSS = "training losses before and after are of different objectives"


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The preset and its network."""

    preset: str = setting(
        "classic",
        group="model",
        choices=PRESETS,
        help="Network and training recipe. The README has a table of them.",
        fixes_numbers=True,
        kept=_SHAPE,
    )
    latent_dim: int | None = setting(
        None,
        group="model",
        help="Number of latent dimensions; for the presets for pictures, latent channels at each place of the grid.",
        low=1,
        from_preset=True,
        fixes_numbers=True,
        kept=_SHAPE,
    )
    width: int | None = setting(
        None,
        group="model",
        help="Channels of the first layer, for the presets for pictures.",
        low=1,
        from_preset=True,
        fixes_numbers=True,
        kept=_SHAPE,
    )
    binarize: bool | None = setting(
        None,
        group="model",
        help="Draw each pixel black or white with its grey level as the probability: training pixels again at every "
        "step, test pixels once from the seed.",
        from_preset=True,
        fixes_numbers=True,
        kept="its test losses are of pixels drawn so",
        affects_speed=True,
    )

    @property
    def recipe(self) -> Preset:
        """The preset by value."""
        return PRESETS[self.preset]


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """The loss that is minimised."""

    objective: str = setting(
        "elbo",
        group="objective",
        choices=OBJECTIVES,
        help="The loss that is minimised; fastvae.objectives has its formula. The test loss is the negative ELBO for "
        "all objectives.",
        fixes_numbers=True,
        at_resume=_LOSS,
        affects_speed=True,
    )
    beta: float = setting(
        1.0,
        group="objective",
        help="Factor of the KL term (beta-VAE); of the KL's distance from --capacity for --objective capacity; of the "
        "total correlation for --objective tcvae.",
        low=0,
        fixes_numbers=True,
        at_resume=_LOSS,
    )
    beta_schedule: BetaSchedule | None = setting(
        None,
        group="objective",
        shown_default="from the preset",
        help="Schedule of beta: constant; warmup, from 0 to --beta in --beta-steps; or cyclical, cycles of "
        "--beta-steps whose first half is a warm-up.",
        fixes_numbers=True,
        at_resume=_LOSS,
        affects_speed=True,
    )
    beta_steps: int | None = setting(
        None,
        group="objective",
        shown_default="from the preset",
        help="Steps of the warm-up, or of one cycle, of --beta-schedule.",
        low=1,
        fixes_numbers=True,
        at_resume=_LOSS,
    )
    samples: int | None = setting(
        None,
        group="objective",
        shown_default="5",
        help=f"Importance samples per image (K), for the objectives {names_with('samples')}.",
        low=1,
        fixes_numbers=True,
        at_resume=_LOSS,
        affects_speed=True,
    )
    free_bits: float | None = setting(
        None,
        group="objective",
        metavar="NATS",
        shown_default="none",
        help=f"Nats per latent dimension that cost nothing, for --objective {names_with('free_bits')}; of latents on a "
        "grid, per channel: the KL of a channel is the sum over its places.",
        low=0,
        fixes_numbers=True,
        at_resume=_LOSS,
    )
    capacity: float | None = setting(
        None,
        group="objective",
        metavar="NATS",
        shown_default="none",
        help=f"Target KL in nats, for --objective {names_with('capacity')}.",
        low=0,
        fixes_numbers=True,
        at_resume=_LOSS,
    )
    capacity_steps: int | None = setting(
        None,
        group="objective",
        shown_default="--capacity from the start",
        help="Steps in which the target KL rises linearly from 0 to --capacity.",
        low=1,
        fixes_numbers=True,
        at_resume=_LOSS,
    )

    @property
    def beta_and_capacity(self) -> tuple[float, float]:
        """Their values where no schedule changes them."""
        return self.beta, self.capacity or 0.0

    def objective_options(self, dataset_size: int) -> dict[str, float]:
        """Return the objective's keyword arguments other than beta and capacity, for so many training images."""
        given = {"dataset_size": dataset_size, **vars(self)}
        return {name: given[name] for name in OBJECTIVES[self.objective].options if given[name] is not None}
