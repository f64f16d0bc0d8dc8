"""The fused trainer against the reference's eager loop: same weights, batches and noise, step by step.

What ``python -m fastvae.parity`` runs, on fewer images; its command is in tests/parity.
"""

import functools

import pytest
import torch

from fastvae.data import load
from fastvae.models import PRESETS
from fastvae.parity.curves import Setting
from fastvae.parity.rules import Yardstick, judge
from fastvae.train.config import TrainConfig, resolve

# The quick suite has one network that is fast and, of the deepest one, the steps that most runs take.
QUICK = [("classic", precision) for precision in ("fp64", "fp32", "bf16")] + [("leaky", "bf16")]
MLPS = [name for name, preset in PRESETS.items() if preset.network == "mlp"]
EXECUTIONS = ["eager", "traced", pytest.param("compiled", marks=pytest.mark.slow)]
PRECISIONS = ("fp64", "fp32", "bf16")


@functools.cache
def setting(preset):
    # 300 of the digits: they divide evenly into no preset's batches, so some batches are smaller.
    # fastvae/parity/rules.py says why not every seed will do in fp32.
    config = resolve(TrainConfig(preset=preset, seed=8, beta=1.5))
    return Setting(config, load("digits").train[:300], 100, torch.device("cpu"))


def slow(*values):
    # All of a preset in one worker, which runs its loop in fp64 once.
    marks = [pytest.mark.xdist_group(f"parity of {values[0]}")]
    return pytest.param(*values, marks=marks if values[:2] in QUICK else [*marks, pytest.mark.slow])


@functools.cache
def yardstick(preset, precision):
    truth = None if precision == "fp64" else yardstick(preset, "fp64").truth
    return Yardstick.of(setting(preset), precision, truth)


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize(
    ("preset", "precision"), [slow(preset, precision) for preset in MLPS for precision in PRECISIONS]
)
def test_every_step_is_the_references(preset, precision, execution):
    if execution == "compiled" and preset != "leaky":
        pytest.skip("the deepest network is enough for the compiler")
    if execution == "eager" and preset != "classic" and (preset, precision) != ("leaky", "fp64"):
        pytest.skip("autograd has the operators of the traces: two networks are enough, one of them in each precision")
    by = yardstick(preset, precision)
    curve = setting(preset).fused(precision, execution)
    assert len(curve.loss) == 100
    assert curve.loss[-1] < 0.75 * curve.loss[0]  # it learned something, so the steps were not idle
    assert judge(curve, by).objection == ""


@pytest.mark.parametrize(
    ("preset", "precision", "bound"),
    [slow(preset, *row) for preset in MLPS for row in (("fp32", 1e-3), ("bf16", 1e-2))],
)
def test_the_yardstick_is_short(preset, precision, bound):
    # An eager loop that goes astray would let everything pass: autocast, for one, keeps stale weights if it may.
    by = yardstick(preset, precision)
    assert judge(by.eager, by).differences.max() < bound
