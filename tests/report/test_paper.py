"""Tables and BibTeX for a paper: layout, marks, what must not get lost."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from zoo_bench import manifest, store

from mtl.cli.main import dispatch
from mtl.cli.report_paper import citations
from mtl.compose.composition import COMPOSITIONS
from mtl.joint.joint_method import JOINT
from mtl.methods.method import METHODS
from mtl.report.cite import TITLES, bibtex
from mtl.report.paper import paper_table
from mtl.report.stats import Interval
from mtl.report.suite import Cell, SuiteRow, SuiteTable
from mtl.zoo import open_zoo


def row(kind: str, method: str, scores: dict[str, Cell], average: float | None) -> SuiteRow:
    mean = None if average is None else Interval(average, None, None, 2)
    return SuiteRow(kind, method, scores, mean, 10, 10, 10, None)


def cell(mean: float, std: float | None = None, *caveats: str) -> Cell:
    return Cell(mean, (0, 1), "data", caveats, None, std)


@pytest.fixture
def table() -> SuiteTable:
    rows = (
        row("adapter", "full_ft", {"toy/a": cell(0.5, 0.01), "toy/b": cell(0.7)}, 0.6),
        row("adapter", "pfeiffer", {"toy/a": cell(0.9), "toy/b": cell(0.70001)}, 0.8),
        row("composition", "scalearn (K=2)", {"toy/a": cell(0.6, 0.02, "one class")}, None),
    )
    return SuiteTable("toy", "tiny", ("toy/a", "toy/b"), rows, ("100 % of it",), {"accuracy": 2})


def test_latex(table: SuiteTable) -> None:
    text = paper_table(table, "latex", std=True)
    assert r"full\_ft & 50.00 {\scriptsize $\pm$ 1.00} & 70.00 & 60.00 \\" in text
    assert (
        r"pfeiffer & \textbf{90.00} & 70.00 & \textbf{80.00} \\" in text
    )  # 70.00 is printed twice
    assert r"\underline{60.00} {\scriptsize $\pm$ 2.00}$^{?}$ & -- & --" in text
    assert text.count(r"\midrule") == 2  # a group for adapters, one for compositions
    assert r"\multicolumn{4}{l}{\textit{two-stage}}" in text
    assert "% 100 % of it" in text
    assert "% ? toy/a, scalearn (K=2): one class" in text
    body = [line for line in text.splitlines() if not line.startswith("%")]
    assert all(line.count(" & ") == 3 for line in body if line.endswith(r"\\") and "&" in line)
    assert "scriptsize" not in paper_table(table, "latex")


def test_markdown(table: SuiteTable) -> None:
    lines = paper_table(table, "markdown", std=True).splitlines()
    assert lines[0] == "|  | a | b | average |"
    assert "| pfeiffer | **90.00** | 70.00 | **80.00** |" in lines
    assert "| scalearn (K=2) | <u>60.00</u> ± 2.00? | – | – |" in lines
    assert any("average of accuracy (2)" in line for line in lines)


def test_csv(table: SuiteTable) -> None:
    plain = list(csv.DictReader(io.StringIO(paper_table(table, "csv"))))
    assert [line["a"] for line in plain] == ["50.0000", "90.0000", "60.0000"]
    assert plain[2]["b"] == plain[2]["average"] == ""
    assert plain[0]["seeds"] == "2"
    spread = list(csv.DictReader(io.StringIO(paper_table(table, "csv", std=True))))
    assert [line["a std"] for line in spread] == ["1.0000", "", "2.0000"]


def test_scores_below_zero_are_ranked_as_numbers() -> None:
    rows = tuple(
        row("adapter", name, {"toy/a": cell(value)}, value)
        for name, value in (("one", -0.2), ("two", -0.1), ("three", 0.05))
    )
    text = paper_table(SuiteTable("toy", "tiny", ("toy/a",), rows, ()), "markdown")
    assert "| two | <u>-10.00</u> |" in text
    assert "| three | **5.00** |" in text


def test_every_method_has_a_source_to_cite() -> None:
    for registry in (METHODS, COMPOSITIONS, JOINT):
        for name in registry:
            for text in bibtex({name: registry.get(name).citation}).split("\n\n"):
                assert re.fullmatch(r"@misc\{[a-z0-9]+,\n(  \w+ = \{.+\},?\n)+\}", text), text
                number = re.search(r"eprint = \{([\d.]+)\}", text)
                assert number is None or number.group(1) in TITLES, name


def test_methods_of_one_paper_are_one_entry() -> None:
    cited = {
        "lora": "Hu et al. 2022, arXiv:2106.09685",
        "hyperformer": "Karimi Mahabadi et al. 2021, HyperFormer, arXiv:2106.04489, as in ScaLearn",
        "hyperformer++": "Karimi Mahabadi et al. 2021, HyperFormer, arXiv:2106.04489",
        "prefix": "Li and Liang 2021, arXiv:2101.00190",
        "adakron": "AdaKron, DetectiveMB/AdaKron (code)",
    }
    text = bibtex(cited)
    assert text.count("@misc{") == 4
    assert "note = {mtl: hyperformer, hyperformer++}" in text
    assert "author = {Li and Liang}" in text
    assert "author = {Karimi Mahabadi and others}" in text
    assert "howpublished = {AdaKron, DetectiveMB/AdaKron (code)}" in text


def test_a_citation_of_two_papers_is_two_entries() -> None:
    both = "ours; gates of Louizos et al. 2018, arXiv:1712.01312, on ScaLearn, arXiv:2310.01217"
    text = bibtex({"gated": both, "scalearn": "Frohmann et al. 2024, ScaLearn, arXiv:2310.01217"})
    assert text.count("@misc{") == 2
    assert "author = {Louizos and others}" in text
    assert "author = {Frohmann and others}" in text
    assert "note = {mtl: gated, scalearn}" in text


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    zoo = open_zoo(tmp_path / "zoo")
    entry = store(zoo, manifest())
    argv = ["--zoo", str(zoo.root)]
    assert dispatch("report", [*argv, "--latex"]) == 0
    assert r"pfeiffer & 50.00 & 50.00 \\" in capsys.readouterr().out
    assert dispatch("report", [*argv, "--cite"]) == 0
    assert "2005.00247" in capsys.readouterr().out
    assert citations([entry]) == {"pfeiffer": METHODS.get("pfeiffer").citation}
    for wrong in (["--std"], ["--latex", "--json"], ["--cite", "--target", "toy/own"]):
        assert dispatch("report", [*argv, *wrong]) == 2
        assert "says" in capsys.readouterr().err
