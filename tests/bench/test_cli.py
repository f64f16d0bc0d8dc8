"""Exit status of `fastvae bench` over several comparisons."""

import pytest

from fastvae.bench import cli
from fastvae.bench.config import Bench


@pytest.mark.parametrize(("objections", "status"), [([["a"], []], 1), ([[], ["a"]], 1), ([[], []], 0)], ids=str)
def test_one_void_comparison_makes_the_exit_status_1(monkeypatch, objections, status):
    for name in ("race", "show", "content"):
        monkeypatch.setattr(cli, name, lambda *_: None)
    answers = iter(objections)
    monkeypatch.setattr(cli, "disagreements", lambda results: next(answers))

    class Pretended:
        name = "a network"

    assert cli._run(Bench(), [(Pretended(), ["an entry"]), (Pretended(), ["an entry"])]) == status
