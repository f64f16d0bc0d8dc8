"""Dynamic binarisation in training: whose pixels, which ones, and that a run's ways of running do not change them."""

import pytest
import torch
from torch import nn

import fastvae
from fastvae.data import Batch, Dataset, load
from fastvae.evaluate.saved_run import SavedRun, evaluate
from fastvae.models import build
from fastvae.nn import Bernoulli, ContinuousBernoulli
from fastvae.ops import Noise
from fastvae.train import TrainConfig, resolve
from fastvae.train.binarize import check_binarize, drawn_for_testing
from fastvae.train.checkpoint import checkpoint
from fastvae.train.distributed.world import World
from fastvae.train.engine import Engine
from fastvae.train.step.loss import PIXEL_STREAM
from fastvae.utils.errors import InputError

CPU = torch.device("cpu")
BATCH = Batch(load("digits").train[:23], row_offset=7, rows=23)


class Spying(Bernoulli):
    def nll(self, output, target, **options):
        self.seen = target
        return super().nll(output, target, **options)


class Watched(nn.Flatten):
    def forward(self, x):
        self.seen = x
        return super().forward(x)


def engine(**options):
    settings = {"precision": "fp64", "execution": "traced", "binarize": True, "batch_size": 23, "latent_dim": 3}
    config = resolve(TrainConfig(**(settings | options)))
    torch.manual_seed(0)
    return Engine(build(config.recipe, (1, 8, 8), 3), config, World(0, 0, 1, CPU))


def test_encoder_and_likelihood_see_the_pixels_of_the_step():
    likelihood, watched = Spying(), Watched()
    decoder = nn.Sequential(nn.Linear(2, 64), nn.Unflatten(1, (1, 8, 8)))
    model = fastvae.VAE(nn.Sequential(watched, nn.Linear(64, 4)), decoder, likelihood)
    config = resolve(TrainConfig(precision="fp32", execution="eager", binarize=True, seed=5))
    taking = Engine(model, config, World(0, 0, 1, CPU))
    drawn = []
    for step in range(2):
        taking.train_step(BATCH)
        drawn.append(Noise(5, step, BATCH.row_offset, stream=PIXEL_STREAM).binarize(BATCH.images))
        assert torch.equal(likelihood.seen, drawn[-1])
        assert torch.equal(watched.seen, drawn[-1].float() / 255)
    assert not torch.equal(*drawn)
    assert set(drawn[0].unique().tolist()) == {0, 255}


@pytest.mark.parametrize(
    ("objective", "options"),
    [
        *(
            (objective, options)
            for objective in ("elbo", "iwae")
            for options in ({"execution": "eager"}, {"accumulate": 3}, {"backend": "reference"})
        ),
        pytest.param("iwae", {"execution": "compiled"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_however_a_step_is_run_it_draws_the_same(objective, options):
    plain, other = engine(objective=objective), engine(objective=objective, **options)
    for _ in range(5):
        plain.train_step(BATCH)
        other.train_step(BATCH)
    torch.testing.assert_close(other.sums, plain.sums, rtol=1e-9, atol=0)


def test_two_halves_of_a_batch_draw_what_the_whole_draws():
    whole, halves = engine(lr=1e-30), engine(lr=1e-30)
    whole.train_step(BATCH)
    state = halves.counter.state.clone()
    for rows in (slice(0, 9), slice(9, 23)):
        halves.counter.state.copy_(state)
        halves.train_step(Batch(BATCH.images[rows], BATCH.row_offset + rows.start, 23))
    torch.testing.assert_close(halves.sums, whole.sums, rtol=1e-9, atol=0)


def test_going_on_is_the_longer_run(train, metrics):
    flags = ["--binarize", "--preset", "iwae"]
    whole = train("--epochs", "4", *flags, out="whole")[1]
    parts = train("--epochs", "2", *flags, out="parts")[1]
    assert train("--epochs", "4", *flags, "--resume", out="parts")[0] == 0
    first, second = (checkpoint.newest(folder / "checkpoints")[1].tensors for folder in (whole, parts))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert [line["loss"] for line in metrics(whole)] == [line["loss"] for line in metrics(parts)]


def test_the_images_for_testing_are_drawn_once(train, metrics):
    folder = train("--epochs", "3", "--binarize", "--seed", "4")[1]
    saved = SavedRun.open(folder, CPU)
    loader = saved.test_loader(None)
    images = loader.first(loader.count)
    assert set(images.unique().tolist()) == {0, 255}
    assert torch.equal(images, drawn_for_testing(load("digits").test, 4))
    assert not torch.equal(images, drawn_for_testing(load("digits").test, 5))
    assert torch.equal(images[:9], drawn_for_testing(load("digits").test[:9], 4))
    last = metrics(folder)[-1]
    assert last["split"] == "test"
    assert evaluate(saved, loader).terms.loss == pytest.approx(last["loss"], rel=1e-5)


def test_the_preset_decides_unless_it_is_told():
    recipe = resolve(TrainConfig(preset="iwae"))
    assert (recipe.binarize, recipe.schedule, recipe.epochs) == (True, "iwae", 3280)
    told = resolve(TrainConfig(preset="iwae", binarize=False, schedule="constant"))
    assert (told.binarize, told.schedule) == (False, "constant")
    plain = resolve(TrainConfig())
    assert (plain.binarize, plain.schedule) == (False, "constant")
    assert resolve(TrainConfig(binarize=True)).binarize


def test_what_cannot_be_binarized_is_refused():
    grey = torch.zeros(4, 1, 2, 2)
    with pytest.raises(InputError, match=r"--binarize draws from uint8 pixels, but mine has torch.float32: use --b"):
        check_binarize(Dataset("mine", grey, grey), Bernoulli())
    with pytest.raises(InputError, match=r"goes with a Bernoulli likelihood, but the model's is ContinuousBernoulli"):
        check_binarize(Dataset("mine", grey.byte(), grey.byte()), ContinuousBernoulli())
