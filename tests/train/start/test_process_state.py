"""A run finds gradients enabled and a generator of its own, and the caller finds their own again."""

import torch

from fastvae.train import TrainConfig
from fastvae.train.start.process_state import process_state


def test_the_caller_finds_their_own_state_again():
    device = torch.device("cpu")
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with torch.inference_mode():
        with process_state(TrainConfig(), device):
            assert torch.is_grad_enabled()
            assert not torch.is_inference_mode_enabled()
            torch.rand(5)
        assert torch.is_inference_mode_enabled()
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.rand(2), expected)
