"""``noise=None``: a key from torch's generator, of the whole range that a key may have."""

import pytest
import torch

from fastvae import ops
from fastvae.ops.noise import Noise, noise_arguments

MU = torch.zeros(2, 3)


def keys(count):
    found = []
    for _ in range(count):
        eps, state, row_offset, stream = noise_arguments(None, MU)
        assert (eps, row_offset, stream) == (None, 0, 0)
        found.append(state)
    return torch.stack(found)


def test_keys_are_of_32_bits_each():
    """A bit that is equal in all of 64 fair keys has a probability of 2**-63."""
    found = keys(64)
    assert found.min() >= 0
    assert found.max() < 2**32
    for part in found.T:
        assert len(part.unique()) == len(part)
        for bit in (0, 1, 15, 16, 30, 31):
            assert 0 < (part >> bit & 1).sum() < len(part), bit


def test_seed_and_step_are_drawn_apart():
    found = keys(64)
    assert (found[:, 0] != found[:, 1]).all()


def test_torchs_seed_rules_it_and_each_call_draws_anew():
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn += [ops.reparameterize(MU, MU), ops.reparameterize(MU, MU)]
    assert torch.equal(drawn[0], drawn[2])
    assert torch.equal(drawn[1], drawn[3])
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[4])


@pytest.mark.parametrize("stream", [0, 5])
def test_a_key_that_is_given_draws_nothing_from_torch(stream):
    state = torch.get_rng_state()
    _, key, *place = noise_arguments(Noise(3, 4, 5, stream=stream), MU)
    assert (key.tolist(), place) == ([3, 4], [5, stream])
    assert torch.equal(torch.get_rng_state(), state)
