"""The files that a public project has beside its code say what is so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import mtl

ROOT = Path(__file__).parents[1]
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
PAGES = ("CHANGELOG.md", "SECURITY.md", ".github/PULL_REQUEST_TEMPLATE.md", "CITATION.cff")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_citation_is_of_this_version() -> None:
    found = yaml.safe_load(read("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors"} <= found.keys()
    assert found["version"] == mtl.__version__
    assert f'license = "{found["license"]}"' in read("pyproject.toml")
    for paper in found["references"]:
        number = paper["url"].rpartition("/")[2]
        assert f"arXiv:{number}" in read("docs/methods.md")


def test_the_changelog_has_the_form_that_it_names() -> None:
    text = read("CHANGELOG.md")
    versions = re.findall(r"^## \[([^\]]+)\]", text, re.M)
    assert versions[0] == "Unreleased"
    groups = re.findall(r"^### (.+)$", text, re.M)
    assert set(groups) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert len(groups) >= 4
    dates = [re.findall(r"^- (\d{4}-\d\d-\d\d): ", part, re.M) for part in text.split("\n### ")]
    assert all(found == sorted(found, reverse=True) for found in dates)


def test_hooks_run_what_the_test_script_runs() -> None:
    (repo,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    assert repo["repo"] == "local"  # nothing is fetched
    entries = [hook["entry"] for hook in repo["hooks"]]
    script = read("scripts/test.sh").replace('"$python"', "python")
    checks = re.findall(r"^(python -m (?:ruff \w+|mypy))", script, re.M)
    assert sorted(entries) == sorted(checks)
    assert len(checks) == 3


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.stem)
def test_issue_forms_ask_for_something(form: Path) -> None:
    found = yaml.safe_load(form.read_text(encoding="utf-8"))
    if form.stem == "config":
        assert found.keys() == {"blank_issues_enabled"}
        return
    assert found["name"]
    assert found["description"]
    asked: list[dict[str, Any]] = [item for item in found["body"] if item["type"] != "markdown"]
    assert len({item["id"] for item in asked}) == len(asked) > 0
    assert {item["type"] for item in asked} <= {"textarea", "input", "dropdown", "checkboxes"}
    assert all(item["attributes"]["label"] and item["validations"]["required"] for item in asked)


@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_made_up(page: str) -> None:
    """No addresses of people or hosts that nobody gave; files and tests that are named exist."""
    text = read(page)
    assert "@" not in re.sub(r"`[^`]*`", "", text)
    hosts = set(re.findall(r"https?://([^/\s)]+)", text))
    assert hosts <= {"keepachangelog.com", "semver.org", "arxiv.org"}
    for name in re.findall(r"`((?:tests|docs|mtl|scripts|examples)/[\w/.-]*)`", text):
        assert (ROOT / name).exists(), name


def test_what_is_public_has_the_names_that_are_there() -> None:
    text = read("CONTRIBUTING.md").partition("## What is public")[2].partition("\n## ")[0]
    from mtl.compose import Composition
    from mtl.graph.scores.score import Score
    from mtl.joint import JointMethod
    from mtl.methods import Method, Source, Tuned

    for kind in (Method, Composition, JointMethod, Score, Tuned, Source):
        assert f"`{kind.__name__}`" in text
    assert (ROOT / "tests/zoo/versions").is_dir()
    assert (ROOT / "mtl/zoo/migration.py").is_file()
