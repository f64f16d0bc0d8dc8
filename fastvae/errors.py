"""The one exception for what a user can mend."""


class InputError(ValueError):
    """Bad input: a flag, a file, a setting. The message is one line: what, both offending values, the remedy.

    The command line prints it without a traceback and exits with status 2.
    """
