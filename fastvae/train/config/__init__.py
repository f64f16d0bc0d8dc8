"""Configuration: the settings of a run, their validation, and their stored form."""

from .config import Execution as Execution
from .config import Precision as Precision
from .config import TrainConfig as TrainConfig
from .model import BetaSchedule as BetaSchedule
from .optimisation import RateSchedule as RateSchedule
from .resolve import resolve as resolve
from .resolved_config import Origin as Origin
from .resolved_config import ResolvedConfig as ResolvedConfig
from .resolved_config import SettledConfig as SettledConfig
from .resolved_config import SettledExecution as SettledExecution
from .resolved_config import SettledPrecision as SettledPrecision
from .resolved_config import settle as settle
