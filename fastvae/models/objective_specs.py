"""Registry of the objectives: the one place where an objective is named, with all that the rest has to know of it.

It does not import torch, and neither does a command line that only prints; the functions are loaded at first use.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from .objectives.objective import Objective


@dataclass(frozen=True)
class ObjectiveSpec:
    """An objective and what it takes; calling it calls ``function``.

    function: takes a VAE, pixels and noise, then by keyword reduction, weight, backend and what is named below.
    scalars: those of beta and capacity that it takes, as numbers or 0-d tensors that change from step to step.
    options: its other arguments by keyword, constant in a run: settings of the same name (left out where the user
        gives none, so that the function's own default holds), or ``dataset_size``, the number of training images.
    needs: the settings that the user has to give.
    schedules: the settings that are about its scalars, and no arguments.
    any_levels: it takes a VAE with several levels of latents.
    couples_rows: its loss is not a sum over the rows, but a function of a statistic of all rows of a batch.
    batch_kl: for an objective that couples rows by KLs alone: takes a VAE and pixels, then options by keyword, and
        returns the sums of these KLs over the rows, fp64. ``function`` takes their means over the whole batch as
        ``batch_kl``; its losses over the parts of the batch then add up to that of the whole, and so do the gradients.
    """

    function: "Callable[..., Objective]"
    scalars: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    schedules: tuple[str, ...] = ()
    any_levels: bool = False
    couples_rows: bool = False
    batch_kl: "Callable[..., Tensor] | None" = None

    def __call__(self, *args: Any, **kwargs: Any) -> "Objective":
        return self.function(*args, **kwargs)

    def takes(self, name: str) -> bool:
        """Tell whether a setting, ``samples`` for instance, means anything to this objective."""
        return name in (*self.scalars, *self.options, *self.schedules)


def _elbo(*args: Any, **kwargs: Any) -> "Objective":
    from .objectives.elbo import elbo  # noqa: PLC0415 -- here and below: torch comes with it

    return elbo(*args, **kwargs)


def _importance_weighted(*args: Any, **kwargs: Any) -> "Objective":
    from .objectives.importance_weighted import importance_weighted  # noqa: PLC0415

    return importance_weighted(*args, **kwargs)


def _capacity(*args: Any, **kwargs: Any) -> "Objective":
    from .objectives.capacity import capacity  # noqa: PLC0415

    return capacity(*args, **kwargs)


def _sum_kl(*args: Any, **kwargs: Any) -> "Tensor":
    from .objectives.capacity import sum_kl  # noqa: PLC0415

    return sum_kl(*args, **kwargs)


def _free_bits(*args: Any, **kwargs: Any) -> "Objective":
    from .objectives.free_bits import free_bits  # noqa: PLC0415

    return free_bits(*args, **kwargs)


def _sum_group_kl(*args: Any, **kwargs: Any) -> "Tensor":
    from .objectives.free_bits import sum_group_kl  # noqa: PLC0415

    return sum_group_kl(*args, **kwargs)


def _total_correlation(*args: Any, **kwargs: Any) -> "Objective":
    from .objectives.total_correlation import total_correlation  # noqa: PLC0415

    return total_correlation(*args, **kwargs)


_OBJECTIVES = {
    "elbo": ObjectiveSpec(_elbo, scalars=("beta",), any_levels=True),
    "iwae": ObjectiveSpec(partial(_importance_weighted, estimator="iwae"), options=("samples",)),
    "dreg": ObjectiveSpec(partial(_importance_weighted, estimator="dreg"), options=("samples",)),
    "stl": ObjectiveSpec(partial(_importance_weighted, estimator="stl"), options=("samples",)),
    "capacity": ObjectiveSpec(
        _capacity,
        scalars=("beta", "capacity"),
        needs=("capacity",),
        schedules=("capacity_steps",),
        couples_rows=True,
        batch_kl=_sum_kl,
    ),
    "free-bits": ObjectiveSpec(
        _free_bits, options=("free_bits",), needs=("free_bits",), couples_rows=True, batch_kl=_sum_group_kl
    ),
    "tcvae": ObjectiveSpec(_total_correlation, scalars=("beta",), options=("dataset_size",), couples_rows=True),
}
OBJECTIVES: Mapping[str, ObjectiveSpec] = MappingProxyType(_OBJECTIVES)
"""The objectives by their names on the command line."""


def names_with(setting: str) -> str:
    """Return the names of the objectives that take a setting, in words.

    >>> names_with("samples")
    'iwae, dreg and stl'
    """
    *others, last = (name for name, spec in OBJECTIVES.items() if spec.takes(setting))
    return f"{', '.join(others)} and {last}" if others else last


def option_names() -> tuple[str, ...]:
    """Return the settings that belong to some objectives and mean nothing to the others.

    >>> option_names()
    ('samples', 'capacity', 'capacity_steps', 'free_bits')
    """
    specs = OBJECTIVES.values()
    names = [name for spec in specs for name in (*spec.scalars, *spec.options, *spec.schedules)]
    # Every run has a beta, with a default of 1, and a data set.
    return tuple(dict.fromkeys(name for name in names if name not in ("beta", "dataset_size")))
