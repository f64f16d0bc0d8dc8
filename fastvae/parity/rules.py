"""The rules by which two training curves agree.

fp64: each step's loss, nll and KL, and each final weight, agree within 1e-9.

fp32, bf16, fp16: at each step, the loss may differ from that of the fp64 loop by as much as the eager loop of the same
precision has differed up to then, plus 1e-5 of the loss. So an engine that rounds as torch's own operators do agrees,
however much the network amplifies rounding, and one that computes something else does not. In bf16 and fp16, where 1e-5
is less than any rounding, four times that difference is allowed, since two rounding errors of the same size differ by
chance. (Six presets, three seeds, two backends, 100 steps in bf16: 0.8 to 2.2 times.)

In fp32 the rule does not hold for every seed: a ReLU whose input is within rounding of 0 may fall on either side, and
the curves jump apart there, by 1e-5 to 1e-4 where it was seen (keras with seed 7, leaky with seed 8 in one backend).

Final weights are not judged in these precisions, only shown. Where a gradient is pure rounding error (at a pixel that
is always black), Adam and RMSprop turn it into full steps, and any two runs that round differently diverge.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fastvae.train.config import SettledPrecision

from .curves import Curve, Setting

EXACT = 1e-9
MARGIN = 1e-5
FACTORS = {"fp32": 1, "bf16": 4, "fp16": 4}


class Verdict(NamedTuple):
    """The judgement on a curve.

    Attributes:
        differences: (steps,) relative differences of the loss; in fp64 the largest of loss, nll and KL.
        weights: difference of the final weights. In fp64 it is the largest one, relative to the larger of the weight
            and 1; in other precisions, the norm of the difference over that of the weights.
        objection: a short description of the disagreement; empty if there is none.
    """

    differences: Tensor
    weights: float
    objection: str

    @property
    def agrees(self) -> bool:
        return not self.objection


@dataclass(frozen=True)
class Yardstick:
    """The curves that a precision is judged by: the loop in fp64, and the eager loop in that precision."""

    precision: SettledPrecision
    truth: Curve
    eager: Curve

    @classmethod
    def of(cls, setting: Setting, precision: SettledPrecision, truth: Curve | None = None) -> "Yardstick":
        """Run the reference loops. ``truth`` is the result of :meth:`Setting.reference` in fp64, if already known."""
        if precision == "fp64":
            truth = truth or setting.reference("fp64")
            return cls(precision, truth, truth)
        eager = setting.reference(precision)
        if truth is None or eager.left_out:
            truth = setting.reference("fp64", eager.left_out)
        return cls(precision, truth, eager)


def judge(curve: Curve, by: Yardstick) -> Verdict:
    """Judge a curve by the rule of its precision."""
    if by.precision == "fp64":
        differences = _relative(curve.terms, by.truth.terms).amax(1)
        weights = max(
            ((tensor - exact).abs() / exact.abs().clamp(min=1)).max().item()
            for tensor, exact in _pairs(curve.weights, by.truth.weights)
        )
        objection = _first(differences, torch.full_like(differences, EXACT))
        if not objection and not weights <= EXACT:
            objection = f"final weights off by {weights:.1e}, allowed are {EXACT:.1e}"
        return Verdict(differences, weights, objection)
    differences = _relative(curve.loss, by.truth.loss)
    lost = (by.eager.loss - by.truth.loss).abs().cummax(0).values / by.truth.loss.abs()
    return Verdict(
        differences,
        _distance(curve.weights, by.truth.weights),
        _first(differences, FACTORS[by.precision] * lost + MARGIN),
    )


def _relative(values: Tensor, exact: Tensor) -> Tensor:
    return (values - exact).abs() / exact.abs()


def _first(differences: Tensor, allowed: Tensor) -> str:
    """Describe the first step whose difference is not allowed (NaN never is); empty if there is none."""
    wrong = (~(differences <= allowed)).nonzero()
    if not len(wrong):
        return ""
    step = int(wrong[0])
    return f"step {step + 1} off by {differences[step].item():.1e}, allowed are {allowed[step].item():.1e}"


def _distance(weights: Mapping[str, Tensor], exact: Mapping[str, Tensor]) -> float:
    pairs = list(_pairs(weights, exact))
    off = sum((tensor - true).square().sum().item() for tensor, true in pairs)
    norm: float = sum(true.square().sum().item() for _, true in pairs)
    return float((off / norm) ** 0.5)


def _pairs(weights: Mapping[str, Tensor], exact: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    return [(weights[name].double(), exact[name].double()) for name in exact]
