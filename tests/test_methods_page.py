"""``docs/methods.md``: every method has its place there, its formulas give the README's counts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mtl.compose import COMPOSITIONS
from mtl.joint import JOINT
from mtl.methods import METHODS, UNAVAILABLE

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
NAMES = [*METHODS, *COMPOSITIONS, *JOINT]
FOLDERS = (
    "",
    "docs/",
    "mtl/**/",
    "tasks/**/",
    "tests/**/",
    "scripts/**/",
    "benchmarks/",
    "examples/",
)
ENDINGS = ("md", "toml", "py", "yaml", "yml", "sh")
SHIPPED = {
    path
    for folder in FOLDERS
    for ending in ENDINGS
    for path in ROOT.glob(f"{folder}*.{ending}")
    if path != Path(__file__)
}

ROBERTA = {"L": 12, "D": 768, "F": 3072, "V": 50265, "K": 8, "Q": 8}
FORMULA = r"`([^`]+)`\s=\s([\d,]+)(?<!,)(?:\s\(([^)]*=[^)]*)\))?"


def sections() -> dict[str, str]:
    """Heading → what stands below it, headings with names between backticks only."""
    found = {}
    for part in re.split(r"^#{2,3} ", PAGE, flags=re.M)[1:]:
        heading, _, text = part.partition("\n")
        if "`" in heading:
            found[heading] = text
    return found


def section_of(name: str) -> str:
    found = [text for heading, text in sections().items() if f"`{name}`" in heading.split()]
    assert len(found) == 1, f"{name} has {len(found)} headings in docs/methods.md"
    return found[0]


def value(formula: str, given: str) -> int:
    letters = dict(ROBERTA)
    for item in re.split(r",\s", given) if given else []:
        letter, _, number = item.partition("=")
        letters[letter.strip()] = int(number)
    code = formula.replace("·", "*").replace("²", "**2").replace("³", "**3")
    assert re.fullmatch(r"[\w\s+*/()]+", code), formula
    result = eval(code, {"__builtins__": {}}, letters)
    assert result == int(result), formula
    return int(result)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_has_a_heading_a_count_and_the_source_it_cites(name: str) -> None:
    text = section_of(name)
    assert "Parameters:" in text
    registry: Any = next(found for found in (METHODS, COMPOSITIONS, JOINT) if name in found)
    cited = re.findall(r"arXiv:\d{4}\.\d{5}|\w+/\w+", registry.get(name).citation)
    assert cited
    assert all(source in text for source in cited), cited


def test_nothing_has_a_heading_that_is_no_method() -> None:
    names = {name for heading in sections() for name in re.findall(r"`([^`]+)`", heading)}
    assert names == set(NAMES)
    assert all(f"`{item.name}`" in PAGE.partition("## Not here")[2] for item in UNAVAILABLE)


@pytest.mark.parametrize("heading", sections())
def test_the_formulas_give_the_numbers(heading: str) -> None:
    found = re.findall(FORMULA, sections()[heading])
    assert found
    for formula, number, given in found:
        assert value(formula, given) == int(number.replace(",", "")), formula


def readme_counts() -> dict[str, str]:
    """Name → the cell of column ``learns`` in the README's tables of methods."""
    found: dict[str, str] = {}
    column = 0
    for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == "method":
            column = cells.index("learns")
        elif not line.startswith("|"):
            column = 0
        elif column:
            found |= dict.fromkeys(re.findall(r"`([^`]+)`", cells[0]), cells[column])
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_counts_the_same(name: str) -> None:
    ours = {number for _, number, _ in re.findall(FORMULA, section_of(name))}
    assert set(re.findall(r"\d[\d,]*\d|\d", readme_counts()[name])) <= ours


def test_a_wrong_formula_is_found() -> None:
    assert value("2·D·R", "R = 48") == 73728
    assert value("L·(D² + k³)", "k = 2") == 12 * (768**2 + 8)
    with pytest.raises(AssertionError):
        value("__import__('os')", "")


def anchors() -> set[str]:
    headings = re.findall(r"^#{1,3} (.+)$", PAGE, flags=re.M)
    return {re.sub(r"[^\w\s-]", "", item).strip().lower().replace(" ", "-") for item in headings}


def test_what_is_cited_is_there() -> None:
    """Nothing shipped cites a document that readers do not have."""
    known = anchors()
    cited = 0
    for path in SHIPPED:
        text = path.read_text(encoding="utf-8")
        shown = path.relative_to(ROOT)
        assert not re.search(r"specs?/\w+_\w+|\bspecs? (?:\w+ )?§|§", text), f"{shown} cites a spec"
        for anchor in re.findall(r"methods\.md#([\w-]+)", text):
            assert anchor in known, f"{shown} cites docs/methods.md#{anchor}"
            cited += 1
    assert cited > 5
