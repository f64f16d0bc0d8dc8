"""The speeds that a run logs, on a clock that steps and evaluations move."""

import re

import pytest

from fastvae.train.engine import Engine

TRAIN, TEST, STEPS = 1497, 300, 12  # images of the digits; steps of an epoch at batch 128


@pytest.fixture
def clock(monkeypatch):
    """Have a training step take 2 seconds, an evaluation 5, and everything else none."""
    now = [100.0]
    step, evaluate = Engine.train_step, Engine.evaluate

    def timed_step(engine, batch):
        now[0] += 2
        return step(engine, batch)

    def timed_evaluation(engine, *arguments):
        now[0] += 5
        return evaluate(engine, *arguments)

    monkeypatch.setattr(Engine, "train_step", timed_step)
    monkeypatch.setattr(Engine, "evaluate", timed_evaluation)
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    return now


def test_images_a_second_are_those_of_each_split_by_its_own_time(train, metrics, clock, capsys):
    status, folder = train("--epochs", "2", "--execution", "eager")
    assert status == 0
    lines = metrics(folder)
    assert [(line["epoch"], line["step"], line["split"]) for line in lines] == [
        (1, STEPS, "train"), (1, STEPS, "test"), (2, 2 * STEPS, "train"), (2, 2 * STEPS, "test"),
    ]  # fmt: skip
    assert [line["images_per_s"] for line in lines] == [TRAIN / (2 * STEPS), TEST / 5] * 2
    output = capsys.readouterr().out
    rate = f"{TRAIN / (2 * STEPS):,.0f} images/s"
    assert re.findall(r"^epoch .* ([\d,]+ images/s)$", output, re.MULTILINE) == [rate] * 2
    assert re.search(rf"time per epoch +│ {2 * STEPS}\.000 s \(median\), {rate}", output)


def test_the_median_epoch_is_told(train, clock, capsys, monkeypatch):
    # Steps of the three epochs take 2, 2 and 102 seconds.
    inner = Engine.train_step

    def slower(engine, batch):
        clock[0] += 100 * (int(engine.counter.state[1]) >= 2 * STEPS)
        return inner(engine, batch)

    monkeypatch.setattr(Engine, "train_step", slower)
    train("--epochs", "3", "--execution", "eager")
    assert re.search(rf"time per epoch +│ {2 * STEPS}\.000 s \(median\)", capsys.readouterr().out)


def test_an_epoch_that_ended_early_has_its_own_images(train, metrics, clock):
    _, folder = train("--max-steps", "5", "--execution", "eager")
    assert [line["images_per_s"] for line in metrics(folder)] == [5 * 128 / (2 * 5), TEST / 5]


def test_a_resumed_epoch_counts_what_it_took_before(train, metrics, clock):
    train("--max-steps", "5", "--execution", "eager")
    _, folder = train("--epochs", "1", "--execution", "eager", "--resume")
    assert [line["images_per_s"] for line in metrics(folder)] == [TRAIN / (2 * STEPS), TEST / 5]


def test_the_last_lines_are_those_of_the_log(train, metrics, capsys):
    _, folder = train("--epochs", "1")
    output = capsys.readouterr().out
    own, test = metrics(folder)
    line = next(line for line in output.splitlines() if line.startswith("epoch 1 "))
    numbers = [float(number) for number in re.findall(r"(?:loss|nll|kl) +([\d.]+)", line)]
    assert numbers == pytest.approx([own["loss"], test["loss"], test["nll"], test["kl"]], abs=6e-4)
    found = re.search(r"([\d.]+) nats = nll ([\d.]+) \+ kl ([\d.]+)", output)
    assert [float(x) for x in found.groups()] == pytest.approx([test["loss"], test["nll"], test["kl"]], abs=6e-3)
