"""Escaping of untrusted text (file names, contents, other libraries' errors) before it is shown."""


def printable(text: str) -> str:
    r"""Return ``text`` on one line, with every unprintable character written as a Python escape.

    That covers line breaks, terminal escape sequences, bidirectional overrides and the surrogates that stand for bytes
    that are not UTF-8. So no file name or config can move the cursor, colour the terminal, or forge a line of output.

    >>> print(printable("a\x1b[31m\nb.png"))
    a\x1b[31m\nb.png
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )
