"""The schedules that the settings of a run ask for."""

import torch

from fastvae.train.optim.schedule import Plan, cosine, cyclical, iwae, ramp, warmed_up

from .config import TrainConfig


def plan(config: TrainConfig, epoch_steps: int) -> Plan:
    """The tables of a run with so many steps in an epoch."""
    assert config.lr is not None
    steps = config.steps(epoch_steps)
    warmup, step = config.warmup_steps, torch.arange(steps, dtype=torch.float64)
    rates = betas = capacities = None
    if config.schedule != "constant" or warmup:
        rates = config.lr * warmed_up(step, warmup)
        if config.schedule == "cosine":
            rates = rates * cosine(step - warmup, max(1, steps - warmup))
        elif config.schedule == "step":
            assert config.decay_epochs is not None
            decay = 0.1 if config.decay is None else config.decay
            rates = rates * decay ** (step // (config.decay_epochs * epoch_steps))
        elif config.schedule == "iwae":
            rates = rates * iwae(step // epoch_steps)
    if config.beta_steps is not None:
        shape = cyclical if config.beta_schedule == "cyclical" else ramp
        betas = config.beta * shape(step, config.beta_steps)
    if config.capacity_steps is not None:
        assert config.capacity is not None
        capacities = config.capacity * ramp(step, config.capacity_steps)
    return Plan(rates, betas, capacities)
