"""The lines that a run prints: the figures of each split, and the epochs that get a line."""

import re

import pytest

from fastvae.train.report.metrics import Metrics
from fastvae.train.report.progress import RunProgress, table
from fastvae.utils.terminal import Terminal

TRAIN, TEST = Metrics(loss=101.25, nll=90.5, kl=10.75), Metrics(loss=202.5, nll=180.25, kl=22.25)


def test_an_epochs_line_has_every_number_in_its_place(capsys):
    RunProgress(Terminal(), 7, 7).epoch(3, TRAIN, TEST, 12345.6)
    line = "epoch 3 train loss 101.250 test loss 202.500 nll 180.250 kl 22.250 12,346 images/s"
    assert capsys.readouterr().out.split() == line.split()


@pytest.mark.parametrize(
    ("epochs", "lines"),
    [
        (1, [1]),
        (7, [1, 2, 3, 4, 5, 6, 7]),
        (39, [*range(1, 40)]),
        (45, [1, *range(2, 45, 2), 45]),
        (105, [1, *range(5, 106, 5)]),
        (107, [1, *range(5, 107, 5), 107]),
    ],
)
def test_there_are_lines_for_the_first_the_last_and_some_epochs_between(capsys, epochs, lines):
    progress = RunProgress(Terminal(), epochs, epochs)
    for epoch in range(1, epochs + 1):
        progress.epoch(epoch, TRAIN, TEST, 1000.0)
    printed = re.findall(r"^epoch +(\d+) ", capsys.readouterr().out, re.MULTILINE)
    assert [int(number) for number in printed] == lines


def test_the_bar_shows_the_terms_of_its_step():
    progress = RunProgress(Terminal(quiet=True), 40, 4)
    progress.show(25, 3, TRAIN, 2500.4)
    (task,) = progress._progress.tasks
    assert (task.completed, task.total) == (25, 40)
    shown = [column.render(task) for column in progress._progress.columns]
    assert [text.plain for text in (shown[0], shown[2])] == [
        "epoch 3/4",
        "loss 101.25  nll 90.50  kl 10.75  2,500 images/s",
    ]


def test_a_table_has_names_and_values_in_order(capsys):
    Terminal().print(table("A run", {"first": "1 nat", "second": "2 nats"}))
    output = capsys.readouterr().out
    assert re.findall(r"(first|second) +│ (\d \w+)", output) == [("first", "1 nat"), ("second", "2 nats")]
    assert output.splitlines()[0].strip() == "A run"
