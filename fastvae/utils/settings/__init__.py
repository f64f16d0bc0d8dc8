"""Settings: dataclass fields that say everything about themselves, once.

:func:`setting` declares a field with its help text, its range and its part in a run. The flags of the command line, the
checks of values that come from Python, and every question such as "which settings fix the numbers of a run" are
derived from these declarations. No module keeps a list of settings by hand.
"""

from .check import check_ranges as check_ranges
from .check import check_types as check_types
from .given import Given as Given
from .given import changed as changed
from .setting import REQUIRED as REQUIRED
from .setting import Setting as Setting
from .setting import describe as describe
from .setting import flag as flag
from .setting import marked as marked
from .setting import setting as setting
from .setting import types_of as types_of
from .wording import as_typed as as_typed
from .wording import in_words_of_caller as in_words_of_caller
from .wording import on_command_line as on_command_line
