"""Hooks that nobody overrides do nothing."""

from fastvae.train.step.hooks import Hooks


def test_the_default_hooks_do_nothing():
    hooks = Hooks()
    batches = [1, 2]
    with hooks.around_step(1, 10), hooks.communicating():
        assert hooks.batches(batches) is batches
