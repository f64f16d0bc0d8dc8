"""The step counter: one tensor that noise and schedules see."""

import torch

from fastvae import Noise
from fastvae.train.optim.step_counter import StepCounter


def test_noise_and_step_are_views_of_one_tensor():
    counter = StepCounter(7)
    counter.advance()
    counter.advance()
    assert counter.state.tolist() == [7, 2]
    assert counter.step.tolist() == [2]
    assert torch.equal(counter.noise.draw((2, 3)), Noise(7, 2).draw((2, 3)))


def test_a_rewound_counter_draws_the_same_noise_again():
    counter = StepCounter(7)
    first = counter.noise.draw((2, 3))
    address = counter.state.data_ptr()
    counter.advance()
    counter.rewind(0)
    assert torch.equal(counter.noise.draw((2, 3)), first)
    assert counter.state.data_ptr() == address  # which a CUDA graph knows
