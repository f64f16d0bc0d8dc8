"""A model of one's own through fastvae.Trainer: the engine, the folder and the exact resume of the command."""

import json

import pytest
import torch
from torch import nn

import fastvae
from fastvae.data import Dataset, load
from fastvae.errors import InputError
from fastvae.train import TrainConfig, Trainer
from fastvae.train.saved import SavedRun


def own_model():
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(36, 6))
    decoder = nn.Sequential(nn.Linear(3, 64), nn.Dropout(0.1), nn.Unflatten(1, (1, 8, 8)))
    return fastvae.VAE(encoder, decoder, latent_shape=3)


@pytest.fixture
def config(tmp_path):
    def make(out="run", **settings):
        return TrainConfig(out=str(tmp_path / out), batch_size=64, autotune=False, device="cpu", **settings)

    return make


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("execution", ["eager", "traced", pytest.param("compiled", marks=pytest.mark.slow)])
def test_it_learns(config, precision, execution):
    if (precision, execution) == ("fp32", "compiled"):
        pytest.skip("compiled in bf16 is enough")
    model = own_model()
    statistics = model.encoder[1].running_mean.clone()
    ends = []
    settings = config(epochs=6, precision=precision, execution=execution, lr=3e-3)
    outcome = Trainer(model, load("digits"), settings, callbacks=[ends.append], quiet=True).fit()
    assert outcome.status == 0
    assert [end.epoch for end in ends] == [1, 2, 3, 4, 5, 6]
    assert outcome.test == ends[-1].test
    assert outcome.test.loss < 0.8 * ends[0].test.loss
    assert not torch.equal(model.encoder[1].running_mean, statistics)
    assert len((outcome.folder / "metrics.jsonl").read_text().splitlines()) == 12


def test_a_callback_ends_the_run(config, capsys):
    outcome = Trainer(own_model(), load("digits").train, config(epochs=9), callbacks=[lambda end: end.epoch == 2]).fit()
    assert outcome.status == 0
    assert "ended by a callback after epoch 2" in capsys.readouterr().out


def test_going_on_is_the_longer_run(config):
    models = [own_model() for _ in range(3)]
    Trainer(models[0], "digits", config("whole", epochs=3), quiet=True).fit()
    Trainer(models[1], "digits", config("parts", epochs=1), quiet=True).fit()
    # The batches and the noise are the seed's; dropout is torch's, which was asked for nothing in between.
    state = torch.get_rng_state()
    Trainer(models[2], "digits", config("parts", epochs=3, resume=True), quiet=True).fit()
    assert not torch.equal(torch.get_rng_state(), state)
    for name, tensor in models[2].state_dict().items():
        assert tensor.shape == models[0].state_dict()[name].shape
    assert models[2].encoder[1].num_batches_tracked == models[0].encoder[1].num_batches_tracked


def test_its_folder_says_that_the_model_is_not_in_it(config):
    outcome = Trainer(own_model(), load("digits"), config(epochs=1), quiet=True).fit()
    assert json.loads((outcome.folder / "config.json").read_text())["own_model"]
    with pytest.raises(InputError, match="a model of its own"):
        SavedRun.open(outcome.folder, torch.device("cpu"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (torch.zeros(3, 8, 8), r"float32 of shape \(2, 8, 8\), but must be uint8"),
        (torch.zeros(9, 1, 8, 8, dtype=torch.int64), "int64"),
        ((torch.zeros(9, 1, 8, 8), torch.zeros(2, 1, 9, 9)), r"\(2, 1, 9, 9\): both need"),
        ((torch.zeros(9, 1, 8, 8), torch.zeros(2, 1, 8, 8).byte()), "both need one type"),
        (torch.zeros(0, 1, 8, 8), "N >= 1"),
    ],
)
def test_data_that_do_not_fit(data, message, config):
    with pytest.raises(InputError, match=message):
        Trainer(own_model(), data, config())


def test_processes_are_torchruns(config):
    with pytest.raises(InputError, match="nproc is 4"):
        Trainer(own_model(), Dataset("x", *[torch.zeros(2, 1, 8, 8)] * 2), config(nproc=4))
