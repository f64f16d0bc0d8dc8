"""Names of files: kept in little memory, shown on one line, counted where that takes a while."""

import pickle
import sys

from hypothesis import given
from hypothesis import strategies as st

from fastvae.data.formats import file_names
from fastvae.data.formats.file_names import Counting, NameList, shown


@given(st.lists(st.binary(max_size=9)))
def test_names_are_kept(given_names):
    kept = pickle.loads(pickle.dumps(NameList(iter(given_names))))
    assert [kept[place] for place in range(len(kept))] == given_names


def test_a_million_names_take_little_more_than_their_letters():
    kept = NameList(b"class-%03d/%07d.jpg" % (number % 1000, number) for number in range(1_000_000))
    assert len(kept) == 1_000_000
    assert kept[999_999] == b"class-999/0999999.jpg"
    assert sys.getsizeof(kept._block) + kept._ends.nbytes < 32e6


@given(st.binary())
def test_any_name_is_shown_on_one_line(name):
    assert shown(name).isprintable()
    shown(name).encode()


def test_counting_is_silent_unless_it_takes_long(monkeypatch, capsys):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes stderr for a terminal
    with Counting("pictures") as counting:
        assert list(counting(range(3000))) == list(range(3000))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(file_names, "_PATIENCE", 0)
    with Counting("pictures") as counting:
        assert list(counting("ab")) + list(counting(range(3000))) == ["a", "b", *range(3000)]
    caught = capsys.readouterr()
    assert "pictures: 3,000" in caught.err
    with Counting("[/red]\x1b[31m") as counting:  # names are no markup
        list(counting(range(1000)))
    assert "[/red]\\x1b[31m: 1,000" in capsys.readouterr().err
    assert caught.out == ""
    monkeypatch.setenv("RANK", "1")
    with Counting("pictures") as counting:
        assert list(counting(range(3000))) == list(range(3000))
    assert capsys.readouterr().err == ""
