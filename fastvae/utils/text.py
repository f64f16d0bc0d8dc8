"""Text from files, names and other people's errors, made safe to show."""


def printable(text: str) -> str:
    r"""``text`` on one line, with every character that is not printable written as a Python escape.

    That covers line breaks, terminal escape sequences, bidirectional overrides and the surrogates that stand for bytes
    which are not UTF-8. Nothing that a file name or a config holds can move the cursor, colour the terminal, or begin
    a line that looks like one of fastvae's own.

    >>> print(printable("a\x1b[31m\nb.png"))
    a\x1b[31m\nb.png
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )
