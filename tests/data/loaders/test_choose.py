"""Which loader is chosen, and what it says."""

import pytest
import torch
from caches import Made
from pictures import numbered

from fastvae.data import ResidentLoader, TensorSource
from fastvae.data.loaders import choose
from fastvae.data.loaders.choose import choose_loader, loader_of
from fastvae.data.loaders.torch_loader import TorchLoader
from fastvae.data.sources.decoded import DecodedSource

CPU = torch.device("cpu")


@pytest.fixture
def pictures():
    return DecodedSource(numbered(5), 8)


@pytest.mark.parametrize(
    ("free", "dali", "pictures_get", "arrays_get"),
    [(10**9, True, "resident", "resident"), (100, True, "dali", "torch"), (100, False, "torch", "torch")],
)
def test_by_size_and_by_what_is_installed(monkeypatch, pictures, free, dali, pictures_get, arrays_get):
    monkeypatch.setattr(choose, "_free", lambda device: free)
    monkeypatch.setattr(choose, "has_dali", lambda: dali)
    assert choose_loader("auto", pictures, CPU).name == pictures_get
    assert choose_loader("auto", Made((5, 3, 8, 8)), CPU).name == arrays_get
    assert (
        choose_loader("auto", TensorSource(torch.zeros(5, 3, 8, 8)), CPU).name == "resident"
    )  # it is in memory already
    assert ("DALI is not installed" in str(choose_loader("auto", pictures, CPU))) == (pictures_get == "torch")


def test_it_says_the_sizes(monkeypatch, pictures):
    monkeypatch.setattr(choose, "_free", lambda device: 2 * 10**9)
    assert str(choose_loader("auto", pictures, CPU)) == "resident (0.00 GB of images, 2.00 GB free on cpu)"
    assert str(choose_loader("torch", pictures, CPU)) == "torch (from the settings)"


def test_what_cannot_be_is_refused(monkeypatch, pictures, refuses):
    monkeypatch.setattr(choose, "_free", lambda device: 100)
    with refuses("--loader resident does not fit", "use --loader auto"):
        choose_loader("resident", pictures, CPU)
    with refuses("--loader dali decodes", "an array", "use --loader auto"):
        choose_loader("dali", TensorSource(torch.zeros(5, 3, 8, 8)), CPU)
    monkeypatch.setattr(choose, "has_dali", lambda: False)
    with refuses("not installed", "pip install fastvae[dali]"):
        choose_loader("dali", pictures, CPU)


def test_it_makes_what_it_chose(pictures):
    options = {"augment": None, "workers": 0, "show_progress": False, "batch_size": 2, "seed": 0}
    resident = loader_of("resident", pictures, **options)
    by_torch = loader_of("torch", TensorSource(torch.zeros(5, 3, 8, 8)), **options)
    assert isinstance(resident, ResidentLoader)
    assert isinstance(by_torch, TorchLoader)
    assert (resident.count, by_torch.count) == (5, 5)
