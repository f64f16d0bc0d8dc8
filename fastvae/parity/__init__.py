"""The fused trainer against the reference's eager loop on this machine. ``python -m fastvae.parity`` is its door."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .curves import Curve as Curve
    from .curves import Setting as Setting
    from .rules import Verdict as Verdict
    from .rules import judge as judge

_NAMES = {"Curve": "curves", "Setting": "curves", "Verdict": "rules", "judge": "rules"}


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
