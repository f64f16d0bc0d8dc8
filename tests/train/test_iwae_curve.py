"""The preset iwae over its first 100 epochs of MNIST against a plain eager loop: the whole curve, not only its steps.

Not part of CI, which has no MNIST: FASTVAE_DATA=DIR pytest -s tests/train/test_iwae_curve.py, two minutes on one core.
"""

import itertools
import json
import os
from pathlib import Path

import pytest
import torch

from fastvae import reference
from fastvae.data import Dataset, ResidentLoader, load
from fastvae.models import PRESETS, build
from fastvae.ops import Noise
from fastvae.train import TrainConfig
from fastvae.train.binarize import drawn_for_testing
from fastvae.train.config import resolve
from fastvae.train.run import run
from fastvae.train.step.loss import EVAL_STREAM, PIXEL_STREAM
from fastvae.utils.errors import InputError

EPOCHS, IMAGES, SEED = 100, 1000, 6  # the first 1,000 images of each split: 50 steps an epoch, 5,000 in all
APART = 4  # times the spread: as fastvae/parity/rules.py has it, roundings of one size with other luck
ROUNDING = 1e-5  # of the loss, its margin in fp32


@pytest.fixture(scope="module")
def mnist():
    folder = os.environ.get("FASTVAE_DATA")
    if not folder:
        pytest.skip("FASTVAE_DATA names no folder with MNIST")
    try:
        whole = load("mnist", Path(folder))
    except InputError as error:
        pytest.skip(str(error))
    return Dataset("mnist", whole.train[:IMAGES], whole.test[:IMAGES])


def model():
    torch.manual_seed(SEED)
    return build(PRESETS["iwae"], (1, 28, 28))


def rate(epoch):
    """Burda et al. 2016, section 5: 3**i epochs at 0.001 * 10 ** (-i / 7)."""
    ends = itertools.accumulate(3**i for i in range(8))
    return 0.001 * 10 ** (-next(i for i, end in enumerate(ends) if epoch < end) / 7)


def plain(data):
    """The reference's loop in fp32. Its mean training losses (EPOCHS,), and the test loss at the end."""
    vae = model()
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-3, eps=1e-4)
    loader = ResidentLoader(data.train, batch_size=20, seed=SEED)

    def batches():
        for epoch in range(EPOCHS):
            optimizer.param_groups[0]["lr"] = rate(epoch)
            loader.set_epoch(epoch)
            yield from (batch.images for batch in loader)

    steps = reference.train(vae.encode, vae.decoder, optimizer, batches(), seed=SEED, pixel_stream=PIXEL_STREAM)
    losses = torch.tensor([loss for loss, _, _ in steps], dtype=torch.float64).view(EPOCHS, -1).mean(1)
    with torch.no_grad():
        x = drawn_for_testing(data.test, SEED).float() / 255
        mu, logvar = vae.encode(x)
        eps = Noise(SEED, EPOCHS, stream=EVAL_STREAM).draw(tuple(mu.shape))
        nll = reference.bernoulli_nll(vae.decoder(reference.reparameterize(mu, logvar, eps)), x)
        return losses, (nll + reference.gaussian_kl(mu, logvar)).item()


def fused(data, folder, nudge=None):
    """``fastvae train --preset iwae``; ``nudge``: a number towards which each weight first moves by one rounding."""
    vae = model()
    if nudge is not None:
        with torch.no_grad():
            for parameter in vae.parameters():
                parameter.copy_(torch.nextafter(parameter, torch.tensor(nudge)))
    config = resolve(
        TrainConfig(
            preset="iwae", epochs=EPOCHS, seed=SEED, precision="fp32", autotune=False, device="cpu", out=str(folder)
        )
    )
    outcome = run(config, model=vae, dataset=data, quiet=True)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    train = [line["loss"] for line in lines if line["split"] == "train"]
    return torch.tensor(train, dtype=torch.float64), outcome.test.loss


@pytest.mark.slow
def test_the_first_100_epochs_follow_the_references_curve(mnist, tmp_path):
    """By 1,000 of the training images and 1,000 of the test images, so that it takes minutes, not hours.

    What may differ is measured here: the largest distance, up to each epoch, among three fused runs that start one
    rounding apart. The reference's curve has to be within four times that, and fp32's margin, of the first of them.
    """
    runs = [fused(mnist, tmp_path / str(nudge), nudge) for nudge in (None, torch.inf, -torch.inf)]
    losses, test = plain(mnist)
    curves, tests = torch.stack([train for train, _ in runs]), [test for _, test in runs]
    spread = (curves.amax(0) - curves.amin(0)).cummax(0).values
    off, allowed = (curves[0] - losses).abs(), APART * spread + ROUNDING * losses
    test_off, test_allowed = abs(tests[0] - test), APART * max(max(tests) - min(tests), spread[-1]) + ROUNDING * test
    for epoch in (1, 4, 13, 40, 100):
        print(
            f"epoch {epoch:3d}: reference {losses[epoch - 1]:.4f}, fastvae {curves[0, epoch - 1]:.4f}, "
            f"apart {off[epoch - 1]:.1e}, spread {spread[epoch - 1]:.1e}"
        )
    print(f"test: reference {test:.4f}, fastvae {tests[0]:.4f}, apart {test_off:.1e}, allowed {test_allowed:.1e}")
    assert losses[-1] < 0.7 * losses[0]  # there was a curve to follow
    assert (off <= allowed).all(), f"epoch {int((off > allowed).nonzero()[0]) + 1}"
    assert test_off <= test_allowed
