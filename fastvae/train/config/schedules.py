"""The schedules that the settings of a run ask for."""

import torch

from fastvae.train.optim.schedule import Plan, cosine, cyclical, iwae, ramp, warmed_up

from .resolved_config import Origin, ResolvedConfig

_DECAY = 0.1  # of --schedule step, where --decay is left out


def plan(config: ResolvedConfig, epoch_steps: int, origin: Origin = Origin()) -> Plan:  # noqa: B008 -- a named tuple
    """Return the tables of learning rate, beta and capacity of a run with so many steps in an epoch from its origin.

    Their entries before the first step of the origin's epoch mean nothing: those steps were taken.
    """
    steps = config.steps(epoch_steps, origin)
    warmup = config.warmup_steps
    step = torch.arange(max(1, steps), dtype=torch.float64)
    epoch = (origin.epoch + (step - origin.step) // epoch_steps).clamp(min=0)
    rates = betas = capacities = None
    if config.schedule != "constant" or warmup:
        rates = config.lr * warmed_up(step, warmup)
        if config.schedule == "cosine":
            rates = rates * cosine(step - warmup, max(1, steps - warmup))
        elif config.schedule == "iwae":
            rates = rates * iwae(epoch)
        elif config.decay_epochs is not None:  # given with --schedule step alone
            decay = _DECAY if config.decay is None else config.decay
            rates = rates * decay ** (epoch // config.decay_epochs)
    if config.beta_steps is not None:
        shape = cyclical if config.beta_schedule == "cyclical" else ramp
        betas = config.beta * shape(step, config.beta_steps)
    if config.capacity is not None and config.capacity_steps is not None:
        capacities = config.capacity * ramp(step, config.capacity_steps)
    return Plan(rates, betas, capacities)
