"""The streams of a run's noise, and the terms of its loss."""

import itertools

import pytest
import torch

from fastvae import reference
from fastvae.models import PRESETS, build
from fastvae.models.ladder import LOWER_STREAM
from fastvae.ops import Noise
from fastvae.train.binarize import drawn_for_testing
from fastvae.train.step import loss
from fastvae.train.step.loss import StepLoss, StepScalars

STREAMS = {name: value for name, value in vars(loss).items() if name.endswith("_STREAM")}
GREY = torch.full((4, 1, 8, 8), 128, dtype=torch.uint8)


def test_no_two_draws_of_a_run_share_a_stream():
    assert len(STREAMS) >= 6
    both_levels = [*STREAMS.values(), *(stream + LOWER_STREAM for stream in STREAMS.values())]
    assert len(set(both_levels)) == len(both_levels)


def test_the_numbers_of_streams_stay():
    """Other numbers draw other noise: a resumed run would not repeat, nor would the figures of a finished one."""
    assert [STREAMS[f"{name}_STREAM"] for name in ("TRAIN", "EVAL", "SAMPLE", "NLL")] == [0, 1, 2, 5]
    for name, stream in (("PIXEL", 3), ("TEST_PIXEL", 4)):  # as the reference draws them
        drawn = Noise(3, stream=STREAMS[f"{name}_STREAM"]).binarize(GREY)
        assert torch.equal(drawn, reference.binarize(GREY, Noise(3).state, stream=stream))


def pixels_of_a_step(images, stream):
    """Return the pixels that the encoder sees in a training step, as uint8."""
    model = build(PRESETS["classic"], (1, 8, 8))
    seen = []
    model.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    one = torch.ones(())
    step = StepLoss(model, "reference", binarize=True)
    step(images, Noise(3).state, 0, stream, StepScalars(one, one, one))
    return (255 * seen[0]).byte()


def test_training_pixels_are_drawn_apart_from_those_for_testing_and_from_the_latents():
    drawn = {"training": pixels_of_a_step(GREY, STREAMS["TRAIN_STREAM"]), "testing": drawn_for_testing(GREY, 3)}
    drawn |= {name: Noise(3, stream=STREAMS[f"{name}_STREAM"]).binarize(GREY) for name in ("TRAIN", "EVAL", "NLL")}
    for (one, a), (other, b) in itertools.combinations(drawn.items(), 2):
        assert set(a.unique().tolist()) <= {0, 255}, one
        assert not torch.equal(a, b), (one, other)
    assert torch.equal(drawn["training"], Noise(3, stream=STREAMS["PIXEL_STREAM"]).binarize(GREY))


@pytest.mark.parametrize(("beta", "weight"), [(1.0, 1.0), (0.25, 0.5)])
def test_sums_are_objective_nll_and_kl(beta, weight):
    model = build(PRESETS["classic"], (1, 8, 8)).double()
    noise = Noise(3, stream=STREAMS["TRAIN_STREAM"])
    elbo = model.loss(GREY, noise, reduction="sum", backend="reference")
    scalars = StepScalars(*(torch.tensor(value, dtype=torch.float64) for value in (weight, beta, 0.0)))
    total, sums = StepLoss(model, "reference")(GREY, noise.state, 0, noise.stream, scalars)
    bound = elbo.nll + beta * elbo.kl
    torch.testing.assert_close(sums, torch.stack((bound, elbo.nll, elbo.kl)).to(sums))
    torch.testing.assert_close(total, weight * bound)
