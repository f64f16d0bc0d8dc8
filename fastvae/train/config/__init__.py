"""Configuration: the settings of a run, their validation, and their stored form."""

from .config import BetaSchedule as BetaSchedule
from .config import Execution as Execution
from .config import Precision as Precision
from .config import RateSchedule as RateSchedule
from .config import TrainConfig as TrainConfig
from .resolve import resolve as resolve
