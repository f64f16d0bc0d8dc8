"""The settings that a run resumes with: its own, and in their place those that were given."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastvae.data.datasets.load import located
from fastvae.models import OBJECTIVES
from fastvae.models.objective_specs import option_names
from fastvae.utils.errors import InputError
from fastvae.utils.settings import changed, describe, flag, marked

from .config import TrainConfig
from .resolve import resolve
from .resolved_config import ResolvedConfig

Changes = dict[str, tuple[Any, Any]]  # a setting's value before and after, by its name
_SIZES = ("latent_dim", "width")  # of the network: no weights fit another one
_AS_BEFORE = ("precision", "execution")  # "auto" means what the run was started with


def taken_over(config: TrainConfig, stored: Mapping[str, Any]) -> TrainConfig:
    """Return the settings of a run that resumes: those given in ``config``, and for the rest those of the run.

    A setting of the run that the given ones make meaningless, a decay for another schedule say, is left out.

    Args:
        config: the settings of this start; ``given`` tells which of them count.
        stored: the settings of the run, resolved, from its config.json.
    """
    described = describe(TrainConfig)
    given = {name: getattr(config, name) for name in config.given}
    given = {name: value for name, value in given.items() if not described[name].leaves_open(value)}
    for name in _AS_BEFORE:
        if given.get(name) == "auto":
            del given[name]
    of_run = {name: value for name, value in stored.items() if not described[name].of_each_start}
    for name in _meaningless(of_run, given):
        of_run.pop(name, None)
    return changed(config, TrainConfig, **{**of_run, **given})


def _meaningless(of_run: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Return the settings of the run that do not go with those given."""
    names = []
    if given.get("schedule", "step") != "step":
        names += ["decay", "decay_epochs"]
    if given.get("beta_schedule") == "constant":
        names += ["beta_steps"]
    if "objective" in given and given["objective"] != of_run.get("objective", "elbo"):
        spec = OBJECTIVES[given["objective"]]
        names += [name for name in option_names() if not spec.takes(name)]
        names += [] if spec.takes("beta") else ["beta", "beta_schedule", "beta_steps"]
    if given.get("loader") in ("resident", "dali"):
        names += ["workers"]
    if given.get("loader") == "dali":
        names += ["cache"]
    return names


def changes_of(path: Path, stored: Mapping[str, Any], config: ResolvedConfig) -> Changes:
    """Return which settings of a run change as it resumes. The images are compared by their content, elsewhere.

    Args:
        path: the run's folder, for the message.
        stored: the settings of the run, from its config.json.
        config: the settings to resume with.

    Raises:
        InputError: a setting that cannot change, as the weights, the optimiser's state or the images depend on it.
    """
    described = describe(TrainConfig)
    defaults = resolve(TrainConfig(preset=config.preset))
    elsewhere = {*marked(TrainConfig, "describes_machine"), *marked(TrainConfig, "of_each_start")}
    changes: Changes = {}
    for name in described.keys() - elsewhere - {"data"}:
        before = stored.get(name, getattr(defaults, name))  # older versions had fewer settings
        now = getattr(config, name)
        if before != now and not (name in _AS_BEFORE and before == "auto"):
            changes[name] = (before, now)
    # Another preset explains all that it fills in: it is told first.
    filled_in = marked(config, "from_preset")
    for name in sorted(changes, key=lambda name: (name in filled_in, name)):
        kept = described[name].kept
        if kept is not None:
            before, now = changes[name]
            weights = "" if name in _SIZES else f" (--init-from {path} takes over the weights, where they fit)"
            raise InputError(
                f"{path} was trained with {flag(name)} {before} and cannot go on with {now}, as {kept}: leave it out, "
                f"or start a new run with another --out{weights}"
            )
    return dict(sorted(changes.items()))


def in_words(changes: Changes, config: ResolvedConfig) -> str:
    """Return what changes, and what that makes inexact, as a part of a line."""
    described = describe(TrainConfig)
    exactly = marked(config, "fixes_numbers")
    parts = []
    for name, (before, now) in changes.items():
        note = described[name].at_resume if name in exactly else None
        parts.append(f"{flag(name)} {before} -> {now}" + (f" ({note})" if note else ""))
    return ", ".join(parts)


def same_images(stored: Mapping[str, Any], config: TrainConfig) -> bool:
    """Return whether a run resumes with images of the same name or path."""
    return located(str(stored["data"])) == located(config.data)
