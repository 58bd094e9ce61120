"""docs/method.md names places in the code and tests: they exist, and every equation has one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
PLACE = re.compile(r"`([\w/]+\.py):([\w.]+)`")


def rows() -> dict[str, list[str]]:
    """Equation number -> cells of its row in the table."""
    text = (REPO / "docs" / "method.md").read_text(encoding="utf-8")
    table = text.split("## Equation by equation")[1].split("\n## ")[0]
    cells = [
        [c.strip() for c in line.strip("|").split(" | ")]
        for line in table.splitlines()
        if line.startswith("| ")
    ]
    return {row[0].strip("| "): row for row in cells if row[0].strip("| ") != "Eq."}


def names(path: Path) -> set[str]:
    """Functions, classes and their methods (``Class.method``) of a file."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{n.name}" for n in node.body if isinstance(n, ast.FunctionDef)}
    return found


def test_every_equation_has_a_row_a_place_and_a_test() -> None:
    table = rows()
    assert set(table) == {*map(str, range(1, 18)), "-"}
    for number, row in table.items():
        assert len(row) == 5, f"Eq. {number}"
        assert PLACE.findall(row[2]), f"Eq. {number} lives nowhere"
        assert PLACE.findall(row[3]), f"nothing checks Eq. {number}"
        assert row[4].strip("| "), f"Eq. {number} does not say whether we depart"


@pytest.mark.parametrize("number", [*map(str, range(1, 18)), "-"])
def test_places_and_tests_exist(number: str) -> None:
    row = rows()[number]
    for folder, cell in (("cotray", row[2]), ("tests", row[3])):
        for file, name in PLACE.findall(cell):
            path = REPO / folder / file
            assert path.is_file(), f"Eq. {number}: {folder}/{file}"
            assert name in names(path), f"Eq. {number}: {folder}/{file} has no {name}"


@pytest.mark.parametrize("number", [*map(str, range(1, 18))])
def test_the_code_names_its_equation(number: str) -> None:
    """In one of the files of its row stands `Eq. N`, or a range that holds it."""
    files = {file for file, _ in PLACE.findall(rows()[number][2])}
    text = "\n".join((REPO / "cotray" / file).read_text(encoding="utf-8") for file in files)
    told = {n for a, b in re.findall(r"Eq\. (\d+)(?:-(\d+))?", text) for n in range(int(a), int(b or a) + 1)}
    assert int(number) in told


def test_settings_of_the_page_exist() -> None:
    """`section.key` in backticks is a setting, or a file."""
    from cotray.config.load import describe

    known = {key for key, _, _ in describe()}
    text = (REPO / "docs" / "method.md").read_text(encoding="utf-8")
    sections = {key.split(".")[0] for key in known if "." in key}
    named = set(re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)(?:=[^`]*)?`", text))
    asked = {name for name in named if name.split(".")[0] in sections and not name.endswith(".py")}
    assert len(asked) > 15
    assert asked <= known
