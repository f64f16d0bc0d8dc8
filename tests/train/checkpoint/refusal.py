"""Flags of short runs, and the one line by which a run is refused."""

ONE = ("--epochs", "1")
GO_ON = ("--epochs", "2", "--resume")


def refusal(capsys):
    """The one line of an error, and nothing of a traceback."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("fastvae: error: ")
    return lines[0]
