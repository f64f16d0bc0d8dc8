"""The line that ``--profile`` prints: the share of the FLOP ceiling follows from its other figures."""

import re

import pytest

from fastvae.train.measure import profile
from fastvae.train.measure.profile import Times
from fastvae.train.measure.roofline import Matmul

FORWARD = 2 * 128 * (64 * 400 + 2 * 400 * 20 + 20 * 400 + 400 * 64)
FLOPS = 3 * FORWARD - 2 * 128 * 64 * 400  # a step of preset classic on 128 digits


@pytest.mark.parametrize(("seconds", "percent"), [(0.010, "25.0"), (0.005, "50.0"), (0.002, "125.0")])
def test_the_share_is_flops_by_seconds_by_the_ceiling(train, capsys, monkeypatch, seconds, percent):
    times = Times(images=128, data=0.2 * seconds, step=0.7 * seconds, communication=0.1 * seconds)
    monkeypatch.setattr(profile.Profiling, "times", lambda self: times)
    asked = []
    monkeypatch.setattr(profile, "fastest_matmul", lambda *what: asked.append(what) or Matmul(512, FLOPS / 0.0025))
    assert train("--profile", "--max-steps", "24")[0] == 0
    (line,) = re.findall("^profile: .*$", capsys.readouterr().out, re.MULTILINE)
    rate = FLOPS / 0.0025 / 1e12
    doubt = ", in a slower moment, or convolutions saved some of the FLOPs counted" if percent == "125.0" else ""
    assert line == (
        f"profile: {128 / seconds:,.0f} images/s at {percent} % of the FLOP ceiling ({FLOPS / 1e9:.3g} GFLOP a step; "
        f"{rate:.3g} TFLOP/s in fp32 products of 512 x 512{doubt}); a step of {1e3 * seconds:.3f} ms is data 20.0 %, "
        "step 70.0 %, communication 10.0 %; trace of 4 steps in fastvae.pt.trace.json.gz"
    )
    assert len(asked) == 1
