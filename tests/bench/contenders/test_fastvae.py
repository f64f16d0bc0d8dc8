"""fastvae as a contender: the trial is for a run of the preset's epochs, and its choice is told."""

import pytest
import torch

from fastvae.bench.contenders.fastvae import FastvaeLoop
from fastvae.bench.contenders.workload import Workload
from fastvae.data import Dataset
from fastvae.models import PRESETS
from fastvae.train.measure import autotune

CPU = torch.device("cpu")
IMAGES = torch.zeros(23, 1, 8, 8, dtype=torch.uint8)


@pytest.fixture
def asked(monkeypatch):
    """Replace the trial by the fixed choice; return the steps of the runs that it was asked about."""
    steps = []

    def choose(config, *arguments):
        steps.append(arguments[-2])
        return autotune.fixed(config, CPU)

    monkeypatch.setattr(autotune, "choose", choose)
    return steps


@pytest.mark.parametrize("preset", ["classic", "keras"])
def test_the_trial_is_for_the_presets_epochs(asked, preset):
    workload = Workload(preset, PRESETS[preset], Dataset("made", IMAGES, IMAGES), 5, CPU)
    contender = FastvaeLoop(workload, 0)
    assert asked == [PRESETS[preset].epochs * 5]
    assert contender.note.startswith(f"{contender.precision}, traced")


def test_what_is_asked_for_has_no_trial(asked):
    workload = Workload("classic", PRESETS["classic"], Dataset("made", IMAGES, IMAGES), 5, CPU)
    contender = FastvaeLoop(workload, 0, "fp32", "eager")
    assert asked == []
    assert contender.precision == "fp32"
