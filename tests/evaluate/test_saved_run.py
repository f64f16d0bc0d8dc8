"""Statistics of a saved run's latents, on models with known answers; and the files that its images come from."""

import struct
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import fastvae
from fastvae.cli import run
from fastvae.data import ResidentLoader
from fastvae.evaluate import saved_run
from fastvae.evaluate.saved_run import SavedRun, evaluate
from fastvae.utils.errors import InputError

SIDE = 4  # of the pictures, and of the grid of latents


class Posterior(nn.Module):
    """An encoder whose means (B, 3, SIDE, SIDE) are the pixels, a tenth of them, and 0; its log-variances are 0."""

    def forward(self, x):
        means = torch.cat((x, 0.1 * x, 0 * x), 1)
        return torch.cat((means, torch.zeros_like(means)), 1)


def opened(images, epoch=3):
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Conv2d(3, 1, 1))
    model = fastvae.VAE(Posterior(), decoder, "gaussian").eval()
    return SimpleNamespace(model=model, settings={"seed": 5}, epoch=epoch)


@pytest.fixture
def images():
    return torch.randn(30, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def loader(images, batch_size=7):
    return ResidentLoader(images, batch_size=batch_size, seed=0, shuffle=False)


def test_the_kl_of_a_channel_is_summed_over_its_places(images):
    result = evaluate(opened(images), loader(images))
    squares = images.double().square().mean(0).sum()  # KL of N(m, 1) from N(0, 1): m**2 / 2
    expected = torch.stack((squares / 2, squares / 200, 0 * squares))
    torch.testing.assert_close(result.kl_per_dimension, expected, rtol=1e-6, atol=1e-9)
    assert result.kl_per_dimension.sum().item() == pytest.approx(result.terms.kl, rel=1e-6)


def test_a_channel_is_active_where_its_mean_varies_enough_at_any_place(images):
    # The variance of a tenth of a standard normal is 0.01 on average over the places, and larger at some of them.
    assert evaluate(opened(images), loader(images)).active.tolist() == [True, True, False]
    quiet = 0.5 * images
    assert evaluate(opened(quiet), loader(quiet)).active.tolist() == [True, False, False]
    quiet[:, :, 2, 1] *= 4
    assert evaluate(opened(quiet), loader(quiet)).active.tolist() == [True, True, False]


def test_the_terms_are_means_over_images_and_the_batch_changes_nothing(images):
    whole, parts = (evaluate(opened(images), loader(images, size)).terms for size in (30, 7))
    assert parts == pytest.approx(whole, rel=1e-6)
    assert whole.loss == pytest.approx(whole.nll + whole.kl, rel=1e-6)
    assert evaluate(opened(images, epoch=4), loader(images)).terms.kl == pytest.approx(whole.kl)
    assert evaluate(opened(images, epoch=4), loader(images)).terms.nll != pytest.approx(whole.nll, rel=1e-9)


def idx(path, images):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(">IIII", 0x803, *images.shape) + images.tobytes())


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Write two folders of MNIST files that differ in pixels and in test images; FASTVAE_DATA names neither."""
    monkeypatch.setenv("FASTVAE_DATA", str(tmp_path / "nothing"))
    for number, name in enumerate(("own", "other")):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 28, 28), dtype=np.uint8)
        idx(tmp_path / name / "train-images-idx3-ubyte", pixels)
        idx(tmp_path / name / "t10k-images-idx3-ubyte", pixels[: 11 + number])
    return tmp_path


def test_a_run_finds_its_own_images_again(folders, capsys):
    flags = ["--data", "mnist", "--data-dir", str(folders / "own"), "--max-steps", "1", "--batch-size", "20"]
    more = ["--device", "cpu", "--precision", "fp32", "--no-autotune", "--latent-dim", "2"]
    assert run(["train", *flags, *more, "--out", str(folders / "run")]) == 0
    capsys.readouterr()
    assert run(["evaluate", str(folders / "run"), "--device", "cpu"]) == 0
    captured = capsys.readouterr()
    assert "on 11 test images" in captured.out
    assert captured.err == f"{folders / 'run'}: its config.json names the images, in {folders / 'own'}\n"
    assert run(["evaluate", str(folders / "run"), "--device", "cpu", "--data-dir", str(folders / "other")]) == 0
    captured = capsys.readouterr()
    assert "on 12 test images" in captured.out
    assert captured.err == ""


@pytest.mark.parametrize(
    ("settings", "data_dir", "named"),
    [
        ({"data": "mnist"}, None, None),
        ({"data": "mnist", "data_dir": "own"}, None, "own"),
        ({"data": "mnist", "data_dir": "own"}, "mine", None),
        ({"data": "a.npy"}, None, "a.npy"),
        ({"data": "torchvision:SVHN", "data_dir": "own"}, None, "torchvision:SVHN of own"),
        ({"data": "torchvision:SVHN", "data_dir": "own"}, "mine", "torchvision:SVHN"),
    ],
)
def test_the_files_that_a_run_names_are_told(tmp_path, settings, data_dir, named):
    saved = SavedRun(tmp_path, nn.Identity(), settings, (1, 8, 8), 0)
    assert saved.named_files(data_dir and tmp_path / data_dir) == named


def test_a_run_names_no_files_where_the_caller_does(tmp_path):
    saved = SavedRun(tmp_path, nn.Identity(), {"data": "a.npy"}, (1, 8, 8), 0, has_own_data=False)
    assert saved.named_files(None) is None


def test_pictures_without_a_size_are_refused_with_a_flag_that_evaluate_has(tmp_path):
    for name in ("0.png", "1.png"):
        (tmp_path / name).write_bytes(b"")
    settings = {"data": str(tmp_path)}
    saved = SavedRun(tmp_path, nn.Identity(), settings, (1, 8, 8), 0, has_own_data=False)
    with pytest.raises(InputError, match=r"pictures of any size, but .* of \(1, 8, 8\), .*: leave --data out, or"):
        saved.data(None)


def test_units_are_active_from_a_hundredth_on():
    """The threshold is that of Burda, Grosse & Salakhutdinov 2015, section 5.2."""
    assert saved_run._ACTIVE == 0.01
