"""A model of one's own through fastvae.Trainer: the engine, the folder and the exact resume of the command."""

import json
import multiprocessing
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fastvae
from fastvae.data import Dataset, load
from fastvae.evaluate.saved_run import SavedRun
from fastvae.train import TrainConfig, Trainer
from fastvae.train.checkpoint import checkpoint
from fastvae.train.step.recording.record import record
from fastvae.utils.errors import InputError


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
@pytest.mark.parametrize("execution", ["eager", "traced"])
def test_it_learns(config, precision, execution):
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


def tensors(folder):
    return checkpoint.newest(folder / "checkpoints")[1].tensors


STOPS = [{"epochs": 2}, {"max_steps": 30}, {"max_steps": 30, "checkpoint_every": 7}]


@pytest.mark.parametrize(
    ("stop", "execution"),
    [
        *((stop, execution) for stop in STOPS for execution in ("eager", "traced")),
        pytest.param(STOPS[-1], "compiled", marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_going_on_is_the_longer_run_to_the_bit(config, stop, execution):
    """At an epoch's end and in the middle of one: dropout and the statistics of the BatchNorm go on too."""
    precision = "bf16" if execution == "compiled" else "fp32"
    settings = {"epochs": 3, "deterministic": True, "execution": execution, "precision": precision}
    ends = []
    whole = Trainer(own_model(), "digits", config("whole", **settings), callbacks=[ends.append], quiet=True).fit()
    assert ends[-1].test.loss < ends[0].test.loss
    Trainer(own_model(), "digits", config("parts", **{**settings, **stop}), quiet=True).fit()
    torch.manual_seed(99)  # another process would have drawn other numbers
    parts = Trainer(own_model(), "digits", config("parts", **settings, resume=True), quiet=True).fit()
    assert parts.test == whole.test
    expected, found = tensors(whole.folder), tensors(parts.folder)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_the_seed_decides_the_dropout_and_the_callers_generator_stays(config):
    runs = []
    for name, draws in (("one", 0), ("two", 5)):
        model = own_model()
        torch.rand(draws)
        state = torch.get_rng_state()
        runs.append(tensors(Trainer(model, "digits", config(name, epochs=1), quiet=True).fit().folder))
        assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in runs[0].items():
        assert torch.equal(runs[1][name], tensor), name


@pytest.mark.parametrize("execution", ["eager", "traced"])
def test_making_steps_counts_in_no_epoch_and_is_told_once(config, execution, monkeypatch, capsys):
    def slowly(*arguments, **options):
        time.sleep(2)
        return record(*arguments, **options)

    monkeypatch.setattr("fastvae.train.step.execution.record", slowly)
    images = load("digits").train[:160]  # three steps, the last of which is smaller: two traces
    settings = config(epochs=2, execution=execution, precision="fp32")
    outcome = Trainer(own_model(), (images, images), settings).fit()
    assert capsys.readouterr().out.count("start-up") == (execution == "traced")
    if execution == "eager":
        assert outcome.startup_s == 0
        return
    assert outcome.startup_s >= 4
    lines = [json.loads(line) for line in (outcome.folder / "metrics.jsonl").read_text().splitlines()]
    assert [160 / line["images_per_s"] < 2 for line in lines if line["split"] == "train"] == [True, True]


def test_its_folder_says_that_the_model_is_not_in_it(config):
    outcome = Trainer(own_model(), load("digits"), config(epochs=1), quiet=True).fit()
    assert json.loads((outcome.folder / "config.json").read_text())["own_model"]
    with pytest.raises(InputError, match="a model of its own"):
        SavedRun.open(outcome.folder, torch.device("cpu"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (torch.zeros(9, 1, 8, 8, dtype=torch.int64), "int64"),
        ((torch.zeros(9, 1, 8, 8), torch.zeros(2, 1, 9, 9)), r"\(2, 1, 9, 9\): both need"),
        ((torch.zeros(9, 1, 8, 8), torch.zeros(2, 1, 8, 8).byte()), "both need one type"),
        (torch.zeros(0, 1, 8, 8), "N >= 1"),
        (torch.zeros(1, 1, 8, 8), "1 image, too few to split"),
    ],
)
def test_data_that_do_not_fit(data, message, config):
    with pytest.raises(InputError, match=message):
        Trainer(own_model(), data, config())


def test_processes_are_torchruns(config):
    with pytest.raises(InputError, match="nproc is 4"):
        Trainer(own_model(), Dataset("x", *[torch.zeros(2, 1, 8, 8)] * 2), config(nproc=4))


def test_it_trains_in_threads_as_it_does_alone(config):
    """Several at once: models with dropout draw from torch's one generator, and a step is recorded by one at a time."""
    images = load("digits").train[:128]
    alone = [Trainer(own_model(), images, config("alone", epochs=1), quiet=True).fit().test]
    before = signal.getsignal(signal.SIGINT)
    models = [own_model() for _ in range(3)]
    with ThreadPoolExecutor(3) as threads:
        runs = [
            threads.submit(Trainer(model, images, config(f"run{place}", epochs=1), quiet=True).fit)
            for place, model in enumerate(models)
        ]
        assert [run.result().test for run in runs] == alone * 3
    assert signal.getsignal(signal.SIGINT) is before


def _fit_in_a_pool(folder):
    settings = TrainConfig(out=folder, batch_size=64, autotune=False, device="cpu", epochs=1)
    return Trainer(own_model(), load("digits").train[:128], settings, quiet=True).fit().test.loss


@pytest.mark.slow
def test_it_trains_in_a_process_of_a_pool(config):
    """In a daemon, which may not have children of its own."""
    alone = Trainer(own_model(), load("digits").train[:128], config("alone", epochs=1), quiet=True).fit().test.loss
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(_fit_in_a_pool, [str(config("pooled").out)]) == [alone]


@pytest.mark.parametrize("kind", [Path, str, np.asarray, list, TensorDataset, DataLoader])
def test_it_trains_on_what_people_have(config, tmp_path, kind):
    images = load("digits").train[:100]
    np.save(tmp_path / "digits.npy", images.numpy())
    alone = Trainer(own_model(), images, config("alone", epochs=1), quiet=True).fit()
    given = kind(tmp_path / "digits.npy") if kind in (Path, str) else kind(images)
    if kind is DataLoader:
        given = DataLoader(TensorDataset(images, torch.arange(100)), batch_size=7)
    assert Trainer(own_model(), given, config("given", epochs=1), quiet=True).fit().test == alone.test
