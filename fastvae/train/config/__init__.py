"""Configuration: the settings of a run, their validation, and their stored form."""

from .config import Execution as Execution
from .config import Precision as Precision
from .config import TrainConfig as TrainConfig
from .model import BetaSchedule as BetaSchedule
from .optimisation import RateSchedule as RateSchedule
from .resolve import resolve as resolve
from .resolved import ResolvedConfig as ResolvedConfig
from .resolved import SettledConfig as SettledConfig
from .resolved import SettledExecution as SettledExecution
from .resolved import SettledPrecision as SettledPrecision
from .resolved import settle as settle
