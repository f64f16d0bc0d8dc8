"""The rules turn when they should, and the command says so."""

from functools import cache, partial

import pytest
import torch

from fastvae.data import load
from fastvae.parity import cli as command
from fastvae.parity.curves import Curve, Setting
from fastvae.parity.rules import Yardstick, judge
from fastvae.train.config import TrainConfig, resolve
from fastvae.train.step.execution import Step

CPU = torch.device("cpu")
STEPS = 20


@pytest.fixture(scope="module")
def setting():
    config = resolve(TrainConfig(preset="classic", seed=8, beta=1.5))
    return Setting(config, load("digits").train[:300], STEPS, CPU)


@pytest.fixture(scope="module")
def yardstick(setting):
    return cache(partial(Yardstick.of, setting))


def nudge(step, result, by):
    """One of the gradients off by a part of its norm."""
    sums, (first, *rest) = result
    return sums, [first + by * first.norm() / first.numel() ** 0.5, *rest]


def reverse(step, result):
    sums, (*rest, last) = result
    return sums, [*rest, -last]


def drop_beta(step, images, state, offset, dials):
    return images, state, offset, dials._replace(beta=torch.ones_like(dials.beta))


def tamper(monkeypatch, result=lambda step, result: result, arguments=lambda step, *arguments: arguments):
    honest = Step.__call__

    def tampered(step, *given, **options):
        return result(step, honest(step, *arguments(step, *given), **options))

    monkeypatch.setattr(Step, "__call__", tampered)


@pytest.mark.xdist_group("parity")  # one worker has the yardsticks
@pytest.mark.parametrize("execution", ["eager", "traced"])
@pytest.mark.parametrize(
    ("precision", "wrong"),
    [
        ("fp64", partial(nudge, by=1e-6)),
        ("fp32", partial(nudge, by=0.1)),  # a hundredth changes 20 steps' losses by less than 1e-5
        ("bf16", reverse),
    ],
)
def test_an_engine_that_computes_something_else_is_caught(setting, yardstick, precision, wrong, execution, monkeypatch):
    by = yardstick(precision)
    assert judge(setting.fused(precision, execution), by).agrees
    for change in ({"arguments": drop_beta}, {"result": wrong}):
        with monkeypatch.context() as patch:
            tamper(patch, **change)
            assert not judge(setting.fused(precision, execution), by).agrees


def curve(*losses, weight=1.0):
    return Curve(torch.tensor([[loss] * 3 for loss in losses], dtype=torch.float64), {"w": torch.tensor([weight])})


@pytest.mark.parametrize(
    ("precision", "eager", "ours", "objection"),
    [
        ("fp64", curve(2, 1), curve(2, 1 + 2e-9), "step 2 off by 2.0e-09, allowed are 1.0e-09"),
        ("fp64", curve(2, 1), curve(2, 1, weight=1.001), "final weights off by 1.0e-03, allowed are 1.0e-09"),
        ("fp64", curve(2, 1), curve(float("nan"), 1), "step 1 off by nan"),
        ("fp64", curve(2, 1), curve(2, 1, weight=float("nan")), "final weights off by nan"),
        ("fp32", curve(2.02, 1), curve(2, 1.015), ""),  # the eager loop was that far off before: 1 % of 2
        ("fp32", curve(2, 1.01), curve(2.01, 1), "step 1 off by 5.0e-03, allowed are 1.0e-05"),
        ("bf16", curve(2.002, 1), curve(2, 1.007), ""),
        ("bf16", curve(2.002, 1), curve(2, 1.009), "step 2 off by 9.0e-03, allowed are 8.0e-03"),
    ],
)
def test_the_rules(precision, eager, ours, objection):
    verdict = judge(ours, Yardstick(precision, curve(2, 1), eager))
    assert verdict.objection.startswith(objection)
    assert verdict.agrees == (objection == "")


@pytest.mark.parametrize(("exact", "error", "agrees"), [(0, 5e-10, True), (0.01, 2e-9, False), (100, 5e-8, True)])
def test_weights_below_1_are_judged_by_their_absolute_error(exact, error, agrees):
    truth = torch.tensor([exact], dtype=torch.float64)
    curves = [curve(1)._replace(weights={"w": weights}) for weights in (truth, truth + error)]
    assert judge(curves[1], Yardstick("fp64", curves[0], curves[0])).agrees == agrees


def test_in_fp16_both_loops_leave_out_the_steps_that_overflow(setting):
    # The CPU emulates fp16, so the command leaves it to GPUs; the loops are right here as well.
    by = Yardstick.of(setting, "fp16")
    assert 0 in by.eager.left_out  # gradients of a sum times 2**16
    assert by.truth.left_out == by.eager.left_out
    assert judge(setting.fused("fp16", "traced"), by).objection == ""


@pytest.mark.slow
def test_the_command_prints_each_run_and_agrees(capsys):
    assert command.main(["--steps", "12", "--device", "cpu"]) == 0
    output = capsys.readouterr().out
    for word in ("fp64", "fp32", "bf16", "eager reference", "traced reference", "step 10", "step 12", "all agree"):
        assert word in output
    assert "differs" not in output


def test_the_command_fails_when_a_run_differs(monkeypatch, capsys):
    tamper(monkeypatch, arguments=drop_beta)
    assert command.main(["--steps", "2", "--device", "cpu"]) == 1
    output = capsys.readouterr().out
    assert "differs" in output
    assert "fp32 traced reference: step 1 off by" in output


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--steps", "0"], "--steps is 0: it must be at least 1"),
        (["--device", "tpu"], "'tpu' is not one of auto, cpu, cuda"),
        (["--seed", "-1"], "--seed is -1"),
        (["--data", "nothing"], "unknown data set 'nothing'"),
    ],
)
def test_bad_input_is_one_line(flags, message, capsys):
    assert command.main(flags) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
