"""The style of prose and statements, as far as a program can check it. The rest is in CONTRIBUTING.md."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("fastvae", "kernels", "benchmarks", "tests/attack")

# Words that begin a fragment, such as "What the run is" or "Of the latents", in place of a verb or a noun phrase.
FRAGMENTS = r"(?:Of|What|Whatever|Whether|Which|Around|How|Where|Who|Whose|Whom)\b"
BEGINNING = re.compile(rf"\s*{FRAGMENTS}")
# An entry of a function's "Args:" with a capital letter: the help text of a flag.
ENTRY = re.compile(rf"^\s*\w+: {FRAGMENTS}", re.MULTILINE)
# "process'" and "processes'" as genitives; "'process'" in quotes is none.
GENITIVE = re.compile(r"(?<!['\w])process(?:es)?'(?![\w'])")
# C++: `x = a, y = b;` as a statement. Declarations begin with a type, so that two words precede the first "=".
COMMA = re.compile(r"^\s*[\w.\[\]>-]+ [-+*/|&]?= [^;()]*, [\w.\[\]>-]+ [-+*/|&]?= ")


def python_files() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("**/*.py"))


def cpp_files() -> list[Path]:
    return sorted([*(ROOT / "csrc").glob("*.cpp"), *(ROOT / "csrc").glob("*.h")])


def prose(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and text of each docstring, those of fields included, and of each ``help=`` in a call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value
        if isinstance(node, ast.keyword) and node.arg == "help" and isinstance(node.value, ast.Constant):
            yield node.value.lineno, str(node.value.value)


def fragments(source: str) -> list[str]:
    """List the docstrings and help texts that begin with a word of :data:`FRAGMENTS`, as "line: text"."""
    found = []
    for line, text in prose(ast.parse(source)):
        begins = BEGINNING.match(text)
        if begins:
            found.append(f"{line}: {text.strip().splitlines()[0]}")
        found.extend(f"{line}: {entry.group().strip()} ..." for entry in ENTRY.finditer(text))
    return found


def genitives(source: str) -> list[str]:
    """List the lines with a bare genitive, "process'": write "of the process" or "process's"."""
    return [f"{number}: {line.strip()}" for number, line in enumerate(source.splitlines(), 1) if GENITIVE.search(line)]


def joined(source: str) -> list[str]:
    """List the assignments of a tuple to a tuple, ``a, b = f(x), g(y)``, that should be several statements.

    An assignment is listed if any of its values contains a call, a subscript or an attribute. Allowed are

    - names and constants: ``low, high = 0, n``;
    - the unpacking of one value: ``a, b = f(x)``;
    - swaps, in which every target is also a value: ``a[i], a[j] = a[j], a[i]``;
    - the same function on each: ``low, high = f(low), f(high)`` (kernels in Triton have no generators for that).
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Assign) and isinstance(node.value, (ast.Tuple, ast.List))):
            continue
        tuples = [target for target in node.targets if isinstance(target, (ast.Tuple, ast.List))]
        if not tuples:
            continue
        targets = {ast.unparse(target) for each in tuples for target in each.elts}
        is_swap = targets <= {ast.unparse(value) for value in node.value.elts}
        functions = {ast.unparse(value.func) if isinstance(value, ast.Call) else None for value in node.value.elts}
        is_one_function = len(functions) == 1 and None not in functions
        computes = any(isinstance(part, (ast.Call, ast.Subscript, ast.Attribute)) for part in ast.walk(node.value))
        if computes and not is_swap and not is_one_function:
            found.append(f"{node.lineno}: {ast.unparse(node)}")
    return found


def test_the_checks_find_what_they_are_for() -> None:
    assert fragments('def f():\n    """Whether it is."""') == ["2: Whether it is."]
    assert fragments('class A:\n    x: int = 1\n    """Of the latents."""') == ["3: Of the latents."]
    assert fragments('add("--x", help="How many.")') == ["1: How many."]
    assert fragments('"""Write it.\n\nArgs:\n    seed: Of the latents.\n"""') == ["1: seed: Of ..."]
    assert fragments('"""Office hours: one office."""\nx = "Of a text"') == []
    assert genitives("# this process' memory") == ["1: # this process' memory"]
    assert genitives("# the process's 'process'") == []
    assert joined("a, b = f(x), 1") == ["1: a, b = (f(x), 1)"]
    assert joined("a, b = x.y, 1")
    assert joined("a, b = f(x), g(y)")
    assert joined("a, b = f(x), f(y)") == []
    assert joined("a, b = 0, n\na, b = f(x)\na[i], a[j] = a[j], a[i]\na, b = (f(v) for v in w)") == []
    assert COMMA.match("    op.prediction = p, op.target = t;")
    assert COMMA.match("  filled *= sizes[d], d = 0;")
    assert not COMMA.match("  int64_t rows = 1, columns = 2;")
    assert not COMMA.match("  for (int i = 0, j = 1; i < n; ++i)")


@pytest.mark.parametrize("path", python_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_and_help_texts_are_whole_sentences(path: Path) -> None:
    assert fragments(path.read_text()) == []
    assert genitives(path.read_text()) == []


@pytest.mark.parametrize("path", python_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_statements_are_not_joined_by_a_tuple(path: Path) -> None:
    assert joined(path.read_text()) == []


@pytest.mark.parametrize("path", cpp_files(), ids=lambda path: path.name)
def test_no_comma_joins_two_statements(path: Path) -> None:
    lines = enumerate(path.read_text().splitlines(), 1)
    assert [f"{number}: {line.strip()}" for number, line in lines if COMMA.match(line)] == []
