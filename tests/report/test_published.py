"""The tables of papers: their averages, their names, what they conclude; and files that lie."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mtl.backbone.shapes import known_models
from mtl.cli.main import dispatch
from mtl.compose.composition import COMPOSITIONS
from mtl.errors import RequestError
from mtl.joint.joint_method import JOINT
from mtl.methods.method import METHODS, UNAVAILABLE
from mtl.report.published import AVERAGE, list_published, load_published, task_mean
from mtl.tasks import PROTOCOLS, list_suites

FIGURES = {
    "adakron-poster": (12, 8),
    "adakron-readme": (18, 8),
    "adalora-deberta": (12, 10),
    "alora-roberta-large": (4, 3),
    "reproduction-runs": (7, 2),
    "scalearn-glue": (14, 8),
    "scalearn-humset": (14, 5),
    "scalearn-superglue": (14, 8),
    "sora-deberta": (6, 10),
    "tensorized-bert": (12, 3),
}
"""Table → its rows and columns."""


def test_every_table_is_there_and_whole() -> None:
    tables = [load_published(name) for name in list_published()]
    assert {t.name: (len(t.rows), len(t.columns)) for t in tables} == FIGURES


@pytest.mark.parametrize("name", FIGURES)
def test_the_printed_averages_are_those_of_the_printed_cells(name: str) -> None:
    """Rounded; the few rows of the sources where it is not so say it in a remark."""
    table = load_published(name)
    for row in table.rows:
        if row.average is None:
            continue
        mean = task_mean(table.columns, [value for value in row.values if value is not None])
        fits = abs(mean - row.average) <= 0.5 * 10**-table.decimals + 1e-9
        assert fits != row.remark.startswith("the mean of the printed cells is"), (row, mean)
        if row.remark:
            assert row.remark.endswith(f"{mean:.4f}")


def test_an_average_counts_a_task_with_two_figures_once() -> None:
    table = load_published("sora-deberta")  # QQP 92.39/89.87, MNLI 90.35/90.38
    tasks = [71.48, 95.64, 91.98, (92.39 + 89.87) / 2, 92.22, (90.35 + 90.38) / 2, 94.28, 87.77]
    values = [value for value in table.row("SoRA").values if value is not None]
    assert task_mean(table.columns, values) == pytest.approx(sum(tasks) / 8)


@pytest.mark.parametrize("name", FIGURES)
def test_names_are_ours_or_named_gaps(name: str) -> None:
    table = load_published(name)
    registries = {"adapter": METHODS, "composition": COMPOSITIONS, "joint": JOINT}
    for row in table.rows:
        if row.method is None:
            assert row.gap in {missing.name for missing in UNAVAILABLE}
        else:
            assert row.method in registries[row.kind], row
            settings = registries[row.kind].get(row.method).settings.__dataclass_fields__
            assert row.settings.keys() <= settings.keys(), row
    assert table.base in known_models()
    assert table.suite in list_suites()
    assert table.protocol is None or table.protocol in PROTOCOLS


@pytest.mark.parametrize("name", FIGURES)
def test_what_is_concluded_holds_in_the_printed_figures(name: str) -> None:
    table = load_published(name)
    for item in table.conclusions:
        better, than = (table.figure(table.row(r), item.on) for r in (item.better, item.than))
        assert better is not None
        assert than is not None
        assert better > than, item


def test_how_many_runs_are_behind_a_cell() -> None:
    table = load_published("scalearn-glue")
    columns = {column.name: column for column in table.columns}
    runs = {
        (name, on): table.runs_of(table.row(name), columns.get(on))
        for name in ("ScaLearn", "HyperFormer")
        for on in ("RTE", "MNLI", AVERAGE)
    }
    assert runs == {
        ("ScaLearn", "RTE"): 10,
        ("ScaLearn", "MNLI"): 3,
        ("ScaLearn", AVERAGE): 3,
        ("HyperFormer", "RTE"): 3,
        ("HyperFormer", "MNLI"): 3,
        ("HyperFormer", AVERAGE): 3,
    }
    assert (
        load_published("adakron-readme").runs_of(load_published("adakron-readme").rows[0]) is None
    )


GOOD = """
title: t
source: s
base: demo
suite: demo
unit: points
decimals: 1
columns:
  A: {task: demo/entail, metric: accuracy}
rows:
  - {name: one, kind: adapter, method: pfeiffer, values: [70.0]}
  - {name: two, kind: adapter, method: lora, values: [60.0]}
conclusions:
  - {better: one, than: two, on: A}
"""


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("values: [70.0]", "values: [70.0, 1]", "must have 1 figures"),
        ("values: [70.0]", "values: [best]", "must be numbers"),
        ("unit: points", "unit: percent", "Unknown unit"),
        ("metric: accuracy", "metric: acuracy", "'accuracy'"),
        ("demo/entail", "demo/ential", "'demo/entail'"),
        ("method: lora,", "", "'gap'"),
        ("kind: adapter, method: lora", "kind: adaptor, method: lora", "'adapter'"),
        ("name: two", "name: one", "several rows are called one"),
        ("than: two", "than: tow", "'two'"),
        ("title: t", "titel: t", "'title'"),
    ],
)
def test_files_that_do_not_fit_together(before: str, after: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(GOOD)
    assert load_published(str(file)).rows[1].values == (60.0,)
    file.write_text(GOOD.replace(before, after, 1))
    with pytest.raises(RequestError, match=said):
        load_published(str(file))


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch("report", ["--published"]) == 0
    assert set(FIGURES) <= set(capsys.readouterr().out.split())
    assert dispatch("report", ["--published", "scalearn-glue"]) == 0
    shown = capsys.readouterr().out
    assert "85.36" in shown
    assert "stage two seeds 0-9" in shown
    assert dispatch("report", ["--published", "sora-deberta", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["published"]
    assert found["rows"][-1]["values"][0] == 71.48
    assert dispatch("report", ["--published", "scalearn-gleu"]) == 2
    assert "'scalearn-glue'" in capsys.readouterr().err
    assert dispatch("report", ["--published", "--suite", "glue"]) == 2
