"""Untrusted names are escaped before they reach a terminal."""

from hypothesis import given
from hypothesis import strategies as st

from fastvae.utils.errors import InputError
from fastvae.utils.text import printable


@given(st.text())
def test_all_of_it_can_be_printed_on_one_line(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1


@given(st.text(st.characters(categories=("L", "N", "P", "S"))))
def test_what_can_be_printed_stays(text: str) -> None:
    assert printable(text) == text


def test_escapes_what_acts_on_a_terminal() -> None:
    assert printable("a\x1b]0;x\x07\r\n\u202e\x9b\udcff") == r"a\x1b]0;x\x07\r\n\u202e\x9b\udcff"


def test_every_message_is_escaped() -> None:
    assert str(InputError("b\x1b[2J\n.png")) == r"b\x1b[2J\n.png"
