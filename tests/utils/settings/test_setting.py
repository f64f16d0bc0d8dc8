"""Declared settings: their flags, their checks and the questions put to them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import tyro

from fastvae.utils.errors import InputError
from fastvae.utils.settings import REQUIRED, check_ranges, check_types, describe, marked, setting, types_of
from fastvae.utils.settings.command_line import parse, parse_command

COLOURS = {"red": 1, "green": 2}


@dataclass(frozen=True, kw_only=True)
class Base:
    """Settings of a base."""

    colour: str = setting("red", group="paint", choices=COLOURS, help="Colour of the wall.", fixes_numbers=True)
    coats: int | None = setting(None, group="paint", shown_default="enough", help="Coats of paint.", low=1)


@dataclass(frozen=True, kw_only=True)
class Wall(Base):
    """Paint a wall."""

    wall: Path = setting(REQUIRED, positional=True, metavar="WALL", help="The wall.")
    speed: float = setting(1.0, group="work", help="Square metres per minute.", low=0, exclusive=True)
    share: float | None = setting(None, group="work", help="Share of the wall.", low=0, high=1, example="0.5")
    seed: int = setting(0, group="work", help="Random seed.", low=0, high=2**63)
    dry: bool | None = setting(None, group="work", help="Wait until it is dry.", from_preset=True)
    options: dict[str, float] = setting({}, group="work", metavar="KEY VALUE ...", help="Other things.")
    rough: Literal["no", "yes"] = setting("no", help="Leave it rough.", fixes_numbers=lambda wall: wall.speed > 2)


def test_flags_are_parsed_into_the_flat_class():
    assert parse(Wall, ["here"], program="paint") == Wall(wall=Path("here"))
    flags = ["here", "--coats", "2", "--speed", "3", "--dry", "--colour", "green", "--options", "a", "1"]
    expected = Wall(wall=Path("here"), coats=2, speed=3.0, dry=True, colour="green", options={"a": 1.0})
    assert parse(Wall, flags, program="paint") == expected
    assert parse(Wall, ["here", "--dry", "False"], program="paint").dry is False
    assert parse_command({"wall": Wall, "base": Base}, ["base"], program="paint", description=None) == Base()


def test_defaults_are_not_shared():
    one = Wall(wall=Path())
    one.options["a"] = 1.0
    assert Wall(wall=Path()).options == {}


def help_of(capsys, cls=Wall):
    with pytest.raises(SystemExit) as stop:
        parse(cls, ["--help"], program="paint")
    assert stop.value.code == 0
    return " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_help_has_texts_defaults_and_choices(capsys):
    shown = help_of(capsys)
    assert "Paint a wall." in shown
    assert "--colour {red,green} Colour of the wall. (default: red)" in shown
    assert "--coats INT Coats of paint. (default: enough)" in shown
    assert "Wait until it is dry. (default: from the preset)" in shown
    assert "WALL The wall. (required)" in shown


@pytest.mark.skipif(tyro.__version__ < "1", reason="tyro 0.9 shows one box for all")
def test_help_is_grouped_by_theme(capsys):
    shown = help_of(capsys)
    places = [shown.index(text) for text in ("paint options", "--colour", "work options", "--speed")]
    assert places == sorted(places)


def test_choices_are_read_anew(monkeypatch):
    monkeypatch.setitem(COLOURS, "blue", 3)
    assert parse(Wall, ["here", "--colour", "blue"], program="paint").colour == "blue"
    assert types_of(Wall)["colour"] == Literal["red", "green", "blue"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"coats": 0}, "--coats is 0: it must be at least 1"),
        ({"coats": 2**48}, r"--coats is 281474976710656: it must be below 2\*\*48"),
        ({"speed": 0.0}, "--speed is 0.0: it must be a finite number, above 0"),
        ({"speed": float("inf")}, "--speed is inf: it must be a finite number"),
        ({"speed": float("nan")}, "--speed is nan: it must be a finite number"),
        ({"share": 1.0}, r"--share is 1.0: it must be in \[0, 1\), 0.5 for example"),
        ({"share": float("nan")}, r"--share is nan: it must be in \[0, 1\)"),
        ({"seed": -1}, r"--seed is -1: it must be in \[0, 2\*\*63\)"),
        ({"seed": 2**63}, r"--seed is \d+: it must be in \[0, 2\*\*63\)"),
    ],
)
def test_ranges(values, message):
    with pytest.raises(InputError, match=f"^{message}"):
        check_ranges(Wall(wall=Path(), **values))


def test_values_in_their_ranges_pass():
    check_ranges(Wall(wall=Path(), coats=1, speed=1e-9, share=0.0, seed=2**63 - 1))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"colour": "blue"}, "--colour is 'blue': use one of red, green"),
        ({"rough": None}, "--rough is None: use one of no, yes"),
        ({"coats": "2"}, "--coats is '2', of the wrong type, str: it must be"),
        ({"options": {"a": "b"}}, "--options is {'a': 'b'}, of the wrong type, dict: it must be a dictionary"),
    ],
)
def test_types(values, message):
    with pytest.raises(InputError, match=f"^{message}"):
        check_types(Wall(wall=Path(), **values))


def test_paths_may_be_text_and_none_may_be_left():
    check_types(Wall(wall="here"))


def test_marks():
    assert marked(Wall(wall=Path()), "fixes_numbers") == ("colour",)
    assert marked(Wall(wall=Path(), speed=3.0), "fixes_numbers") == ("colour", "rough")
    assert marked(Wall, "from_preset") == ("dry",)


def test_a_narrower_type_keeps_the_description():
    @dataclass(frozen=True, kw_only=True)
    class Painted(Wall):
        coats: int

    assert describe(Painted)["coats"] is describe(Wall)["coats"]
    with pytest.raises(InputError, match="--coats is None"):
        check_types(Painted(wall=Path(), coats=None))


def test_a_field_that_is_not_declared_is_refused():
    @dataclass(frozen=True, kw_only=True)
    class Careless(Wall):
        ladder: int = 3

    with pytest.raises(TypeError, match=r"Careless\.ladder is not declared by setting"):
        describe(Careless)
