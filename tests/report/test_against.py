"""Entries beside a published table: which runs a cell takes, what differs, what follows from it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zoo_bench import base, manifest, store

from mtl.cli.main import dispatch
from mtl.files import sha256_json
from mtl.report.against import Cell, Comparison, compare
from mtl.report.against_text import render_against
from mtl.report.published import AVERAGE, PublishedTable, load_published
from mtl.zoo import Entry, Manifest, open_zoo
from mtl.zoo.merged import once

TABLE = """
title: Invented
source: nobody
base: roberta-base
suite: glue
protocol: scalearn
unit: points
decimals: 2
runs: {adapter: 10, composition: 10, joint: 3}
sources: {method: pfeiffer, seed: 0}
columns:
  RTE: {task: glue/rte, metric: accuracy, rows: {train: 2241, test: 277}}
  MRPC: {task: glue/mrpc, metric: f1}
  BoolQ: {task: superglue/boolq, metric: accuracy}
rows:
  - {name: Adapter, kind: adapter, method: pfeiffer, settings: {reduction_factor: 16},
     values: [72.0, 90.0, 76.0], average: 79.33}
  - {name: ScaLearn, kind: composition, method: scalearn, values: [80.0, 92.0, 77.0], average: 83}
  - {name: Joint, kind: joint, method: hyperformer, values: [82.0, 92.0, 77.0]}
  - {name: Unknown, kind: adapter, gap: alora, values: [82.0, 92.0, null]}
conclusions:
  - {better: ScaLearn, than: Adapter, on: RTE}
  - {better: ScaLearn, than: Adapter, on: average}
"""


@pytest.fixture
def table(tmp_path: Path) -> PublishedTable:
    file = tmp_path / "table.yaml"
    file.write_text(TABLE)
    return load_published(str(file))


def described(name: str, value: float, seed: int, **changes: Any) -> Manifest:
    """A run of a task of ours with everything as the table has it."""
    usual = {
        "base": {**base(), "id": "roberta-base", "hidden_size": 768},
        "task": {
            **manifest().task,
            "id": name,
            "headline": "accuracy",
            "metrics": ["accuracy", "f1"],
        },
        "suite": name.partition("/")[0],
        "method_settings": {"reduction_factor": 16.0, "bottleneck": 0},
        "data": {
            "fingerprint": "ef" * 32,
            "protocol": "scalearn",
            "sizes": {"train": 2241, "dev": 249, "test": 277},
            "notes": [],
        },
        "metrics": {
            "dev": {"accuracy": {"value": value, "stderr": 0.02, "n": 249}},
            "test": {
                "accuracy": {"value": value, "stderr": 0.02, "n": 277},
                "f1": {"value": value + 0.1, "stderr": 0.02, "n": 277},
            },
        },
        "seed": seed,
        "runhash": sha256_json([name, seed, str(changes)])[:16],
    }
    return manifest(**{**usual, **changes})


def entry(described: Manifest) -> Entry:
    return Entry(Path(), described.runhash, described, described.runhash, {})


def runs(task: str, values: list[float], **changes: Any) -> list[Entry]:
    return [entry(described(task, value, seed, **changes)) for seed, value in enumerate(values)]


def composed(values: list[float], tasks: int = 8, **changes: Any) -> list[Entry]:
    from mtl.tasks import load_suite

    parents = [
        {"ref": name, "digest": "ab" * 32, "task": name, "method": "pfeiffer", "seed": 0}
        for name in load_suite("glue").tasks[:tasks]
    ]
    settings = {"kind": "composition", "method": "scalearn", "method_settings": {"per": "dim"}}
    return runs("glue/rte", values, **{**settings, "parents": parents, **changes})


def cell(found: Comparison, row: str, on: str) -> Cell:
    return next(item for item in found.cells if (item.row, item.on) == (row, on))


def test_a_cell_by_hand(table: PublishedTable) -> None:
    found = cell(compare(table, runs("glue/rte", [0.72, 0.73, 0.74])), "Adapter", "RTE")
    assert found.ours == {0: 72.0, 1: 73.0, 2: 74.0}
    assert found.mean == pytest.approx(73.0)
    assert found.found is not None
    assert (found.found.d, found.found.n0) == (pytest.approx(1.0), 10)
    assert found.found.se == pytest.approx(np.sqrt(1 / 3 + 1 / 10))
    assert (found.margin, found.verdict) == (0.74, "unresolved")  # 1 > 0.74; p of t = 1.52 is 0.27
    assert found.needs is not None


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0.7200, 0.7202, 0.7198], "reproduced"),
        ([0.7800, 0.7802, 0.7798], "better"),
        ([0.6600, 0.6602, 0.6598], "worse"),
        ([0.72], "unresolved"),
        ([0.62, 0.72, 0.82], "unresolved"),
    ],
)
def test_verdicts_of_cells(values: list[float], said: str, table: PublishedTable) -> None:
    found = compare(table, runs("glue/rte", values))
    assert cell(found, "Adapter", "RTE").verdict == said
    assert cell(found, "Adapter", "MRPC").verdict == "not run"
    assert cell(found, "Unknown", "RTE").verdict == "not here"
    assert cell(found, "Adapter", AVERAGE).verdict == "not run"
    assert sum(found.counts().values()) == len(found.cells) == 4 * 3 + 2


def test_without_a_margin_there_is_an_interval_and_no_verdict(table: PublishedTable) -> None:
    found = cell(compare(table, runs("superglue/boolq", [0.76, 0.761])), "Adapter", "BoolQ")
    assert (found.verdict, found.margin, found.p) == ("no δ", None, None)
    assert found.found is not None
    assert found.found.interval() is not None


def test_the_metric_is_the_one_that_is_printed(table: PublishedTable) -> None:
    found = cell(compare(table, runs("glue/mrpc", [0.8, 0.81])), "Adapter", "MRPC")
    assert found.ours == {0: pytest.approx(90.0), 1: pytest.approx(91.0)}  # f1, no headline
    assert found.notes == ("numbers of rows are not published: not compared",)


DATA = described("glue/rte", 0.7, 0).data


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"base": {**base(), "id": "tiny", "hidden_size": 768}}, "base (tiny, published roberta"),
        ({"data": {**DATA, "protocol": "sora"}}, "protocol (sora, published: scalearn)"),
        (
            {"data": {**DATA, "sizes": {"train": 300, "dev": 249, "test": 277}}},
            "train rows (300, published 2241)",
        ),
        (
            {"metrics": {"test": {"accuracy": {"value": 0.7, "stderr": 0.1, "n": 100}}}},
            "test rows (100, published 277)",
        ),
    ],
)
def test_what_is_not_comparable(changes: dict[str, Any], why: str, table: PublishedTable) -> None:
    found = compare(table, runs("glue/rte", [0.7200, 0.7202, 0.7198], **changes))
    own = cell(found, "Adapter", "RTE")
    assert own.verdict == "not comparable"
    assert len(own.differs) == 1
    assert own.differs[0].startswith(why)
    assert why in render_against(found)


def test_a_metric_that_is_not_there(table: PublishedTable) -> None:
    only = {"test": {"accuracy": {"value": 0.7, "stderr": 0.1, "n": 408}}}
    own = cell(compare(table, runs("glue/mrpc", [0.7], metrics=only)), "Adapter", "MRPC")
    assert (own.verdict, own.differs) == ("not comparable", ("metric (no f1 on test)",))


def test_a_width_may_be_said_in_two_ways(table: PublishedTable) -> None:
    same = {"method_settings": {"reduction_factor": 2.0, "bottleneck": 48}}
    other = {"method_settings": {"reduction_factor": 16.0, "bottleneck": 24}}
    assert cell(compare(table, runs("glue/rte", [0.7], **same)), "Adapter", "RTE").ours
    assert not cell(compare(table, runs("glue/rte", [0.7], **other)), "Adapter", "RTE").ours


def test_sources_of_a_composition(table: PublishedTable) -> None:
    good = cell(compare(table, composed([0.80, 0.801])), "ScaLearn", "RTE")
    assert good.differs == ()
    few = cell(compare(table, composed([0.80, 0.801], tasks=2)), "ScaLearn", "RTE")
    assert few.verdict == "not comparable"
    assert few.differs == ("sources (2 of the 8 of glue, 2 in all)",)
    per_seed = [
        entry(
            replace(
                item.manifest,
                parents=[{**p, "seed": seed, "digest": f"{seed}" * 64} for p in parents],
            )
        )
        for seed, item in enumerate(composed([0.80, 0.801]))
        for parents in [item.manifest.parents]
    ]
    together = cell(compare(table, per_seed), "ScaLearn", "RTE")
    assert len(together.ours) == 2  # sources of each seed are one study
    assert any("sources of seed 0 alone" in note for note in together.notes)


def test_comparable_runs_go_before_others_and_dev_chooses(table: PublishedTable) -> None:
    worse = runs("glue/rte", [0.60, 0.61], run_settings={"lr": 1.0})
    better = runs("glue/rte", [0.70, 0.71], run_settings={"lr": 0.1})
    few = {**DATA, "sizes": {"train": 10, "dev": 249, "test": 277}}
    best = runs("glue/rte", [0.90, 0.91], data=few)
    own = cell(compare(table, [*worse, *better, *best]), "Adapter", "RTE")
    assert own.ours == {0: 70.0, 1: 71.0}
    assert own.notes == ("2 variants, the one that is best on dev",)


def test_the_average_is_over_the_seeds_that_all_tasks_have(table: PublishedTable) -> None:
    entries = [
        *runs("glue/rte", [0.70, 0.72, 0.90]),
        *runs("glue/mrpc", [0.80, 0.82]),  # f1: 0.9, 0.92
        *runs("superglue/boolq", [0.76, 0.76]),
    ]
    own = cell(compare(table, entries), "Adapter", AVERAGE)
    assert own.ours == {0: pytest.approx(236 / 3), 1: pytest.approx(240 / 3)}
    assert (own.margin, own.verdict) == (0.35, "unresolved")


def joint(values: dict[str, float], tasks: list[str]) -> Entry:
    sections = [{**described(task, 0.5, 0).task, "id": task} for task in tasks]
    whole = described(
        "glue/_joint",
        0.5,
        0,
        kind="joint",
        method="hyperformer",
        task={
            "id": "glue/_joint",
            "suite": "glue",
            "name": "_joint",
            "tasks": sections,
            "headline": "average",
            "metrics": ["average"],
            "kind": "joint",
            "labels": [],
            "num_outputs": 0,
        },
        data={**DATA, "tasks": dict.fromkeys(tasks, DATA)},
        metrics={
            "test": {
                f"{task}/accuracy": {"value": value, "stderr": 0.1, "n": 277}
                for task, value in values.items()
            }
        },
    )
    return entry(whole)


def test_a_joint_run_answers_for_its_tasks(table: PublishedTable) -> None:
    from mtl.tasks import load_suite

    tasks = list(load_suite("glue").tasks)
    own = cell(compare(table, [joint({"glue/rte": 0.82}, tasks)]), "Joint", "RTE")
    assert (own.ours, own.differs) == ({0: 82.0}, ())
    few = cell(compare(table, [joint({"glue/rte": 0.82}, tasks[:3])]), "Joint", "RTE")
    assert few.differs == ("tasks together (3, published the 8)",)


def test_conclusions_are_paired_by_seed(table: PublishedTable) -> None:
    own = runs("glue/rte", [0.60, 0.70, 0.80])
    found = compare(table, [*own, *composed([0.70, 0.801, 0.90])])
    rte, average = found.conclusions
    assert rte.text == "ScaLearn > Adapter on RTE"
    assert rte.gain is not None
    assert (rte.gain.mean, rte.gain.n) == (pytest.approx(10.0333, abs=1e-4), 3)
    assert rte.verdict == "holds"
    assert (average.verdict, average.gain) == ("not run", None)
    reverse = compare(table, [*own, *composed([0.50, 0.601, 0.70])])
    assert reverse.conclusions[0].verdict == "does not hold"
    unclear = compare(table, [*own, *composed([0.70, 0.601, 0.90])])
    assert unclear.conclusions[0].verdict == "undecided"


def test_ranks_are_of_rows_that_both_have(table: PublishedTable) -> None:
    from mtl.tasks import load_suite

    three = [
        *runs("glue/rte", [0.70]),
        *composed([0.69]),
        joint({"glue/rte": 0.82}, list(load_suite("glue").tasks)),
    ]
    # published 72 < 80 < 82; ours 70, 69, 82
    assert compare(table, three).ranks == {"RTE": (pytest.approx(0.5), 3)}
    assert compare(table, three[:2]).ranks == {}


def test_the_same_run_twice_counts_once(table: PublishedTable) -> None:
    first = described("glue/rte", 0.70, 0)
    other = replace(
        first, created="2025-01-01T00:00:00+00:00", metrics=described("glue/rte", 0.71, 0).metrics
    )
    verified = replace(other, created="2027-01-01T00:00:00+00:00", verified={"n": 277})
    one, two, three = (
        Entry(Path(), name, m, name, {})
        for name, m in (("a", first), ("b", other), ("c", verified))
    )
    assert once([one, two]) == [two]  # the earliest
    assert once([one, two, three]) == [three]  # the verified one
    assert cell(compare(table, [one, two]), "Adapter", "RTE").ours == {0: 71.0}


def test_the_command(
    table: PublishedTable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zoo = open_zoo(tmp_path / "zoo")
    for seed, value in enumerate([0.72, 0.73, 0.74]):
        store(zoo, described("glue/rte", value, seed))
    argv = ["--zoo", str(zoo.root), "--against"]
    assert dispatch("report", [*argv, str(tmp_path / "table.yaml")]) == 0
    said = capsys.readouterr().out
    assert "73.00 ± 1.00 (n=3)" in said
    assert "72.00 (n=10)" in said
    assert "more seeds" in said
    assert dispatch("report", [*argv, "scalearn-glue", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["against"]
    assert found["counts"]["not run"] == 125
    rte = next(c for c in found["cells"] if c["row"] == "Adapter" and c["on"] == "RTE")
    assert rte["ours"] == {"0": 72.0, "1": 73.0, "2": 74.0}
    assert rte["verdict"] == "unresolved"
    assert dispatch("report", [*argv, "scalearn-gleu"]) == 2
    assert "'scalearn-glue'" in capsys.readouterr().err
    assert dispatch("report", [*argv, "scalearn-glue", "--pick", "best-dev"]) == 2
