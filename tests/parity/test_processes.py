"""The command that shows that the number of processes changes nothing, and that it can say otherwise."""

import pytest
import torch

from fastvae.parity import processes

FLAGS = ["--most", "2", "--steps", "9"]


@pytest.mark.slow
@pytest.mark.xdist_group("spellings")
def test_all_agree(capsys):
    assert processes.main(FLAGS) == 0
    output = capsys.readouterr().out
    assert output.count("agrees") == 4
    assert "all agree" in output


@pytest.mark.parametrize(("changed", "by", "status"), [("losses", 1e-10, 0), ("losses", 1e-8, 1), ("weights", 1e-8, 1)])
def test_a_difference_is_found(monkeypatch, capsys, changed, by, status):
    def run(config, count, how):
        found = {"losses": torch.ones(9, dtype=torch.float64), "weights": torch.ones(4, dtype=torch.float64)}
        if count == 2 and how == "whole":
            found[changed][3] += by
        return found

    monkeypatch.setattr(processes, "_run", run)
    assert processes.main(FLAGS) == status
    assert ("not all agree to 1e-09" in capsys.readouterr().out) == bool(status)


@pytest.mark.parametrize(("flag", "value"), [("--most", "0"), ("--steps", "0"), ("--batch-size", "-1")])
def test_bad_flags(flag, value, capsys):
    assert processes.main([flag, value]) == 2
    assert capsys.readouterr().err == f"fastvae: error: {flag} is {value}: it must be at least 1\n"
