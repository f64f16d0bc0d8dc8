"""The fused trainer against the reference's eager loop on this machine. ``python -m fastvae.parity`` is its door."""

from .curves import Curve as Curve
from .curves import Setting as Setting
from .rules import Verdict as Verdict
from .rules import judge as judge
