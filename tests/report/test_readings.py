"""A task that was changed: what was read or scored otherwise never stands in one row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zoo_bench import composition, fill, manifest, predictions, store, task

from mtl.graph.collect import record
from mtl.graph.evidence import read_file
from mtl.report import render, results, suite_tables
from mtl.report.curve import curves
from mtl.report.page_figures import panels
from mtl.report.page_tables import baselines
from mtl.report.paired import paired_tests
from mtl.report.tables import compared_with
from mtl.report.variance import variance_splits
from mtl.zoo import Entry, Zoo, open_zoo

LONG = {"id": "toy/own", "metrics": ["accuracy"], "max_length": 64, "data": {"files": {}}}
SHORT = {**LONG, "max_length": 32}
"""The same rows, cut elsewhere."""
OTHER = {**LONG, "metrics": ["matthews", "accuracy"]}


@pytest.fixture
def zoo(tmp_path: Path) -> Zoo:
    return open_zoo(tmp_path / "zoo")


def put(zoo: Zoo, spec: dict[str, Any], seed: int, value: float, **changes: Any) -> Entry:
    headline = spec["metrics"][0]
    runhash = f"{len(zoo.entries()):08x}{0:08x}"
    scores = {headline: {"value": value, "stderr": 0.1, "n": 4}}
    described = manifest(
        runhash=runhash,
        seed=seed,
        task={**task("own"), "headline": headline, "metrics": spec["metrics"], "spec": spec},
        metrics={"dev": scores, "test": scores},
        **changes,
    )
    ref = zoo.location("tiny-abababab", "toy", "own", described.method, seed, runhash)
    with zoo.stage(ref) as folder:
        fill(folder)
        predictions(folder, [1, 0, 1, 0])
        return zoo.commit(folder, ref, described)


@pytest.mark.parametrize("other", [SHORT, OTHER])
def test_readings_are_rows_of_their_own(zoo: Zoo, other: dict[str, Any]) -> None:
    for seed, value in ((0, 0.5), (1, 0.6)):
        put(zoo, LONG, seed, value)
    for seed, value in ((1, 0.1), (2, 0.2)):
        put(zoo, other, seed, value)
    rows = sorted(results(zoo.entries()), key=lambda row: row.seeds)
    assert [row.scores for row in rows] == [{0: 0.5, 1: 0.6}, {1: 0.1, 2: 0.2}]
    assert [row.metric for row in rows] == ["accuracy", other["metrics"][0]]
    changed = "metrics" if other is OTHER else "max_length"
    assert rows[1].settings == {f"task.{changed}": other[changed]}
    assert len(panels(rows)) == (2 if other is OTHER else 1)  # drawings have one scale
    (table,) = suite_tables(zoo.entries())
    said = "2 variants (how the task is read, run settings, data or sources)"
    assert said in " ".join(table.notes)
    assert ("not of one metric (accuracy, matthews)" in " ".join(table.notes)) == (other is OTHER)
    assert table.rows[0].scores["toy/own"].seeds in {(0, 1), (1, 2)}
    found, _ = variance_splits(zoo.entries())
    assert sorted(item.mean for item in found) == pytest.approx([0.15, 0.55])


def test_a_renamed_file_of_data_or_a_setting_of_the_run_is_no_other_reading(zoo: Zoo) -> None:
    """What the data's fingerprint and the run's settings say, they say alone."""
    put(zoo, LONG, 0, 0.5)
    put(zoo, {**LONG, "data": {"files": {"train": "renamed.csv"}}}, 1, 0.6)
    put(zoo, SHORT, 0, 0.4, run_settings={"lr": 0.001, "max_length": 32})
    one, two = sorted(results(zoo.entries()), key=lambda row: len(row.seeds))
    assert two.scores == {0: 0.5, 1: 0.6}
    assert one.settings == {"max_length": 32}


def test_a_gain_is_over_an_adapter_of_the_same_metric(zoo: Zoo) -> None:
    own = put(zoo, OTHER, 0, 0.3)
    read = {**own.manifest.task, "headline": "accuracy", "metrics": ["accuracy"], "spec": LONG}
    composition(zoo, [own], np.ones((1, 8)), task=read)
    (row,) = [row for row in results(zoo.entries()) if row.kind == "composition"]
    assert (row.metric, row.gain) == ("accuracy", None)
    put(zoo, LONG, 0, 0.25)
    (row,) = [row for row in results(zoo.entries()) if row.kind == "composition"]
    assert row.gain is not None
    assert row.gain.mean == pytest.approx(0.25)


def test_transfer_is_measured_in_one_metric(zoo: Zoo, tmp_path: Path) -> None:
    own = put(zoo, OTHER, 0, 0.3)
    source = store(zoo, manifest(runhash="a" * 16, task=task("src")))
    read = {**own.manifest.task, "headline": "accuracy", "metrics": ["accuracy"], "spec": LONG}
    composition(zoo, [source], np.ones((1, 8)), task=read, runhash="b" * 16)

    def measured() -> list[float]:
        record(zoo, tmp_path / "graph")
        (path,) = (tmp_path / "graph" / "evidence").glob("compose-*.json")
        return [item.value for item in read_file(path) if item.kind == "measured"]

    assert measured() == []
    put(zoo, LONG, 0, 0.25)
    assert measured() == pytest.approx([0.25])


def gated(number: int, rows: int, seed: int, name: str = "own") -> Entry:
    """A composition with gates by a column, whose groups its training rows decide."""
    settings = {"gate": "dom", "groups": f'{{"a":{rows}}}', "grouping": f"{rows:02d}" * 32}
    parents = [{"ref": "r", "digest": "0" * 64, "task": "t", "method": "pfeiffer", "seed": 0}]
    described = manifest(
        kind="composition",
        method="scalearn",
        method_settings=settings,
        placement=None,
        parents=parents,
        seed=seed,
        task=task(name),
        data={**manifest().data, "sizes": {"train": rows}, "fingerprint": f"{rows:064x}"},
        training={**manifest().training, "baselines": {}},
        runhash=f"{number:016x}",
    )
    ref = f"base/toy/{name}/scalearn/seed{seed}-{number}"
    return Entry(Path("/nowhere"), ref, described, f"{number:064x}", {})


def test_gates_on_more_rows_make_a_curve_and_their_groups_no_rows_of_a_table() -> None:
    entries = [gated(10 * rows + seed, rows, seed) for rows in (20, 40) for seed in (0, 1)]
    (curve,) = curves(entries)
    assert [(point.rows, point.composed.seeds) for point in curve.points if point.composed] == [
        (20, [0, 1]),
        (40, [0, 1]),
    ]
    found = [row.settings for row in results(entries)]
    assert found == [{"grouping": f"{rows:02d}" * 4, "train rows": rows} for rows in (20, 40)]
    other = gated(99, 30, 0, "other")
    (table,) = suite_tables([*entries, other])
    assert [sorted(row.scores) for row in table.rows] == [["toy/other", "toy/own"]]


def test_rows_that_differ_in_nothing_but_their_data_say_so(zoo: Zoo) -> None:
    data = manifest().data
    put(zoo, LONG, 0, 0.5)
    put(zoo, LONG, 1, 0.6)  # of the same data: one row
    put(zoo, LONG, 0, 0.7, data={**data, "fingerprint": "e" * 64})
    rows = sorted(results(zoo.entries()), key=lambda row: row.seeds)
    assert [row.seeds for row in rows] == [[0], [0, 1]]
    assert [row.settings for row in rows] == [
        {"data": "e" * 8},
        {"data": data["fingerprint"][:8]},
    ]
    sizes = {**data["sizes"], "train": 3}
    put(zoo, LONG, 2, 0.8, data={**data, "fingerprint": "d" * 64, "sizes": sizes})
    told = [row.settings for row in results(zoo.entries())]
    assert [set(own) for own in told if own["train rows"] == 3] == [{"train rows"}]


def test_a_length_of_the_task_stands_where_the_run_sets_none(zoo: Zoo) -> None:
    put(zoo, LONG, 0, 0.5)
    put(zoo, SHORT, 1, 0.6)
    put(zoo, LONG, 2, 0.4, run_settings={"lr": 0.001, "max_length": 16})
    found = {row.seeds[0]: row.settings for row in results(zoo.entries())}
    assert found == {0: {"max_length": 64}, 1: {"max_length": 32}, 2: {"max_length": 16}}


def test_baselines_of_one_number_of_rows_say_what_sets_them_apart(zoo: Zoo) -> None:
    for spec, seed, reached in ((LONG, 0, 0.5), (LONG, 1, 0.5), (OTHER, 0, 0.1), (SHORT, 0, 0.4)):
        headline = spec["metrics"][0]
        found = {headline: {"value": reached, "stderr": 0.1, "n": 4, "caveat": None}}
        scores = {"majority": {"says": "always x", "splits": {"test": found}, "train": 5}}
        told = {"toy/own": {"scores": scores, "missing": {}, "seconds": 1.0, "train": 5}}
        put(zoo, spec, seed, 0.6, training={**manifest().training, "baselines": told})
    start = "baselines on test, toy/own, 5 training rows"
    rows = results(zoo.entries())
    assert {text for text in render(rows).splitlines() if text.startswith(start)} == {
        f"{start}, accuracy, task.max_length=64, task.metrics=['accuracy']: majority 0.5000",
        f"{start}, accuracy, task.max_length=32, task.metrics=['accuracy']: majority 0.4000",
        f"{start}, matthews, task.max_length=64, task.metrics=['matthews', 'accuracy']: "
        "majority 0.1000",
    }
    page = baselines(rows)
    for number in ("0.5000", "0.4000", "0.1000"):
        assert page.count(number) == 1
    alone = render(results([e for e in zoo.entries() if e.manifest.task["spec"] == LONG]))
    assert f"{start}: majority 0.5000" in alone


def test_a_choice_of_entries_keeps_what_they_are_compared_with(zoo: Zoo) -> None:
    """A suite, or settings, say what is shown, not what a gain is over."""
    own = put(zoo, LONG, 0, 0.25)
    mixed = composition(zoo, [own], np.ones((1, 8)), task=own.manifest.task)
    (row,) = results([mixed])
    assert row.gain is None
    (row,) = results([mixed], beside=compared_with([mixed], zoo))
    assert row.gain is not None
    assert row.gain.mean == pytest.approx(mixed.manifest.headline()["value"] - 0.25)
    (tested,) = paired_tests([mixed], compared_with([mixed], zoo))
    assert tested.found.gain == pytest.approx(row.gain.mean)
    assert compared_with(zoo.entries(), zoo) == []


def test_entries_that_do_not_tell_how_their_task_is_read_join_the_only_reading(zoo: Zoo) -> None:
    """Those of before have no spec; their data's fingerprint says the same texts and labels."""

    def before(seed: int, value: float) -> None:
        scores = {"accuracy": {"value": value, "stderr": 0.1, "n": 4}}
        told = {**task("own"), "headline": "accuracy", "metrics": ["accuracy"]}
        number = f"{len(zoo.entries()):08x}{0:08x}"
        metrics = {"dev": scores, "test": scores}
        store(zoo, manifest(runhash=number, seed=seed, task=told, metrics=metrics))

    before(0, 0.5)
    (row,) = results(zoo.entries())
    assert row.scores == {0: 0.5}
    put(zoo, LONG, 1, 0.6)
    (row,) = results(zoo.entries())
    assert row.scores == {0: 0.5, 1: 0.6}
    put(zoo, LONG, 0, 0.55)  # the same seed again: of another reading, it may be
    assert sorted(row.seeds for row in results(zoo.entries())) == [[0], [0, 1]]
    before(7, 0.7)
    put(zoo, SHORT, 2, 0.4)
    assert sorted(row.seeds for row in results(zoo.entries())) == [[0, 1], [0, 7], [2]]
