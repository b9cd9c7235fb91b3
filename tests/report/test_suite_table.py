"""Joint, two-stage and single results of a suite in one table: scores, averages, costs by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from zoo_bench import MARK, base, fill, manifest, task

from mtl.cli.main import dispatch
from mtl.report import render_suite, results, suite_tables
from mtl.zoo import Entry, Zoo, open_zoo


@pytest.fixture
def zoo(tmp_path: Path) -> Zoo:
    return open_zoo(tmp_path / "zoo")


def scored(value: float | None) -> dict[str, Any]:
    return {"test": {"accuracy": {"value": value, "stderr": 0.1, "n": 4}}}


def put(zoo: Zoo, tensors: dict[str, np.ndarray], **changes: Any) -> Entry:
    """An entry whose ``adapter.safetensors`` holds ``tensors``."""
    name = str(changes["task"]["name"])
    runhash = f"{len(zoo.entries()):08x}{0:08x}"
    described = manifest(runhash=runhash, **changes)
    ref = zoo.location("tiny-abababab", "toy", name, described.method, described.seed, runhash)
    with zoo.stage(ref) as folder:
        fill(folder)
        save_file(tensors, folder / "adapter.safetensors")
        return zoo.commit(folder, ref, described)


def numbers(n: int) -> dict[str, np.ndarray]:
    return {"w": np.zeros(n, np.float32)}


def training(steps: int, trainable: int) -> dict[str, Any]:
    return {**manifest().training, "steps": steps, "trainable_parameters": trainable}


def adapter(zoo: Zoo, name: str, value: float | None, seed: int = 0, **changes: Any) -> Entry:
    rest = {"metrics": scored(value), "training": training(10, 100), "seed": seed, **changes}
    return put(zoo, numbers(100), task=task(name), **rest)


def composed(zoo: Zoo, name: str, value: float, sources: list[Entry], seed: int = 0) -> Entry:
    parents = [
        {
            "ref": entry.ref,
            "digest": entry.digest,
            "task": entry.manifest.task["id"],
            "method": "pfeiffer",
            "seed": 0,
        }
        for entry in sources
    ]
    return put(
        zoo,
        {"omega.0": np.zeros(6, np.float32), "attention.0": np.zeros(50, np.float32)},
        kind="composition",
        method="scalearn",
        placement=None,
        task=task(name),
        parents=parents,
        metrics=scored(value),
        training=training(30, 6),
        seed=seed,
    )


def joint(zoo: Zoo, values: dict[str, float | None], seed: int = 0, **changes: Any) -> Entry:
    tasks = [task(name) for name in values]
    own = manifest().data
    described = {
        "kind": "joint",
        "method": "propetl-m",
        "task": {
            **task("_joint"),
            "kind": "joint",
            "headline": "average",
            "metrics": ["average"],
            "tasks": tasks,
        },
        "data": {**own, "fingerprint": "12" * 32, "tasks": {t["id"]: own for t in tasks}},
        "metrics": {
            "test": {
                f"toy/{name}/accuracy": {"value": value, "stderr": 0.1, "n": 4}
                for name, value in values.items()
            }
            | {"average": {"value": None, "stderr": None, "n": 8}}
        },
        "training": training(70, 90),
        "seed": seed,
        **changes,
    }
    bits = {"floats": np.zeros(40, np.float32), "mask": np.zeros(4, np.uint8)}
    return put(zoo, bits, **described)


def stocked(zoo: Zoo) -> None:
    sources = [adapter(zoo, "a", 0.5), adapter(zoo, "b", 0.7)]
    for seed, gain in ((0, 0.1), (1, 0.3)):
        for name, value in (("a", 0.5), ("b", 0.6)):
            composed(zoo, name, value + gain, sources, seed)
    joint(zoo, {"a": 0.4, "b": 0.8}, 0)
    joint(zoo, {"a": 0.6, "b": 1.0}, 1)


def test_rows_by_hand(zoo: Zoo) -> None:
    stocked(zoo)
    (table,) = suite_tables(zoo.entries())
    assert table.tasks == ("toy/a", "toy/b")
    assert table.notes == ()
    single, two, both = table.rows
    assert [(row.kind, row.method) for row in table.rows] == [
        ("adapter", "pfeiffer"),
        ("composition", "scalearn (K=2)"),
        ("joint", "propetl-m"),
    ]
    assert single.average is not None
    assert single.average.mean == pytest.approx(0.6)
    assert (single.trainable, single.stored, single.steps) == (100, 100, 20)
    assert {t: cell.mean for t, cell in two.scores.items()} == pytest.approx(
        {"toy/a": 0.7, "toy/b": 0.8}
    )
    assert two.average is not None
    assert (two.average.mean, two.average.n) == (pytest.approx(0.75), 2)
    # seeds 0 and 1 average 0.65 and 0.85; t(0.975, 1) = 12.7062, s = 0.141421
    assert two.average.half == pytest.approx(12.7062 * 0.141421 / 2**0.5, rel=1e-4)
    # two sources of 100 numbers serve two targets with 6 each; fusion's maps are no weights
    assert (two.trainable, two.stored) == (6, (2 * 100 + 2 * 6) / 2)
    assert (two.steps, two.source_steps) == (60, 20)
    assert both.average is not None
    assert both.average.mean == pytest.approx(0.7)
    # 40 floats and 32 bits
    assert (both.trainable, both.stored, both.steps) == (45, 41 / 2, 70)


def test_what_is_missing_shows(zoo: Zoo) -> None:
    sources = [adapter(zoo, "a", 0.5), adapter(zoo, "b", None)]
    composed(zoo, "a", 0.9, sources)
    joint(zoo, {"a": 0.4, "b": None})
    kept = [entry for entry in zoo.entries() if entry.digest != sources[1].digest]
    (table,) = suite_tables(kept, kept)
    two = next(row for row in table.rows if row.kind == "composition")
    assert (two.source_steps, two.stored, two.average) == (None, None, None)
    text = render_suite(table)
    assert "30 + ?" in text
    (whole,) = suite_tables(zoo.entries())
    assert [row.average for row in whole.rows] == [None, None, None]
    assert whole.rows[0].scores.keys() == {"toy/a"}


def test_variants_and_other_data_are_named(zoo: Zoo) -> None:
    other = {**manifest().data, "fingerprint": "34" * 32}
    adapter(zoo, "a", 0.5)
    adapter(zoo, "a", 0.1, data=other)
    adapter(zoo, "a", 0.3, seed=1, data=other)
    adapter(zoo, "b", 0.5)
    joint(zoo, {"a": 0.4, "b": 0.6})
    (table,) = suite_tables(zoo.entries())
    assert table.rows[0].scores["toy/a"].mean == pytest.approx(0.2)
    assert len(table.notes) == 2
    assert "toy/a, pfeiffer: 2 variants" in table.notes[0]
    assert "toy/a: the rows trained or were tested on different data" in table.notes[1]
    assert "note: toy/a" in render_suite(table)


def on_dev(dev: float, test: float) -> dict[str, Any]:
    return {**scored(test), "dev": {"accuracy": {"value": dev, "stderr": 0.1, "n": 4}}}


def test_dev_chooses_among_variants_not_the_number_of_seeds(zoo: Zoo) -> None:
    """Test has no say: the variant that is better on dev is shown, although it is worse there."""
    slow, fast = {"run_settings": {"lr": 0.001}}, {"run_settings": {"lr": 0.01}}
    for seed in (0, 1):
        adapter(zoo, "a", 0, seed, metrics=on_dev(0.6, 0.9), **slow)
    adapter(zoo, "a", 0, metrics=on_dev(0.7, 0.5), **fast)
    adapter(zoo, "b", 0.5)
    (table,) = suite_tables(zoo.entries())
    cell = table.rows[0].scores["toy/a"]
    assert (cell.mean, cell.dev, cell.seeds) == (0.5, 0.7, (0,))
    assert "2 variants (run settings, data or sources); the one that is best on dev" in str(
        table.notes
    )
    assert json.loads(json.dumps(table.to_dict()))["rows"][0]["scores"]["toy/a"]["dev"] == 0.7


@pytest.mark.parametrize("splits", [{"dev": "11" * 32}, None])
def test_dev_scores_of_other_rows_choose_nothing(zoo: Zoo, splits: Any) -> None:
    """Other dev rows, or none known to be the same: the variant with most seeds, and a note."""
    other = {**manifest().data, "fingerprint": "34" * 32, **({"splits": splits} if splits else {})}
    for seed in (0, 1):
        adapter(zoo, "a", 0, seed, metrics=on_dev(0.6, 0.9))
    adapter(zoo, "a", 0, metrics=on_dev(0.7, 0.5), data=other)
    adapter(zoo, "b", 0.5)
    (table,) = suite_tables(zoo.entries())
    assert table.rows[0].scores["toy/a"].mean == pytest.approx(0.9)
    assert "with most seeds, for lack of dev scores" in table.notes[0]


def test_more_training_rows_with_the_same_dev_are_compared(zoo: Zoo) -> None:
    dev = {"splits": {"train": "22" * 32, "dev": "11" * 32}}
    adapter(zoo, "a", 0, metrics=on_dev(0.6, 0.9), data={**manifest().data, **dev})
    more = {**manifest().data, **dev, "fingerprint": "34" * 32}
    adapter(zoo, "a", 0, metrics=on_dev(0.7, 0.5), data=more)
    adapter(zoo, "b", 0.5)
    (table,) = suite_tables(zoo.entries())
    assert table.rows[0].scores["toy/a"].mean == 0.5


def test_bases_have_tables_of_their_own(zoo: Zoo) -> None:
    joint(zoo, {"a": 0.4, "b": 0.6})
    other = base("12" * 32)
    joint(zoo, {"a": 0.4, "b": 0.6}, base=other)
    assert {table.base for table in suite_tables(zoo.entries())} == {
        f"tiny {other['fingerprint'][:8]}",
        f"tiny {MARK}",
    }


def test_command_line(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    stocked(zoo)
    at = ["--zoo", str(zoo.root)]
    assert {row.kind for row in results(zoo.entries())} == {"adapter", "composition"}
    assert dispatch("report", [*at, "--json"]) == 0
    (table,) = json.loads(capsys.readouterr().out)["suites"]
    assert [row["method"] for row in table["rows"]] == ["pfeiffer", "scalearn (K=2)", "propetl-m"]
    assert table["rows"][2]["scores"]["toy/b"]["mean"] == pytest.approx(0.9)
    assert dispatch("report", at) == 0
    text = capsys.readouterr().out
    assert "gain over own adapter" in text
    line = next(line for line in text.splitlines() if line.startswith("propetl-m"))
    assert line.split()[:4] == ["propetl-m", "joint", "0.5000", "0.9000"]
    assert "60 + 20 of sources" in text
    assert dispatch("report", [*at, "--target", "a"]) == 0
    assert "Suite toy" not in capsys.readouterr().out


def test_a_task_of_joint_models_alone(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    joint(zoo, {"a": 0.4, "b": 0.6})
    assert dispatch("report", ["--zoo", str(zoo.root), "--target", "a"]) == 2
    assert "mtl.report --suite toy" in capsys.readouterr().err


def test_rows_of_one_method_say_what_sets_them_apart(
    zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    joint(zoo, {"a": 0.4, "b": 0.6}, run_settings={"lr": 0.001, "epochs": 3})
    joint(zoo, {"a": 0.5, "b": 0.7}, run_settings={"lr": 0.003, "epochs": 3})
    adapter(zoo, "a", 0.5, run_settings={"lr": 0.003})
    (table,) = suite_tables(zoo.entries())
    assert [dict(row.settings) for row in table.rows] == [{}, {"lr": 0.001}, {"lr": 0.003}]
    text = render_suite(table)
    assert "propetl-m lr=0.001  joint" in text
    at = ["--zoo", str(zoo.root), "--json"]
    assert dispatch("report", [*at, "--where", "lr=3e-3"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [row["test"]["mean"] for row in said["rows"]] == [0.5]
    assert [row["kind"] for row in said["suites"][0]["rows"]] == ["adapter", "joint"]
    for wrong, text in (
        ("lr", "takes KEY=VALUE, not 'lr'"),
        ("epoch=1", "Did you mean 'epochs'?"),
        ("lr=7", "holds no entry for --where lr=7"),
    ):
        assert dispatch("report", [*at, "--where", wrong]) == 2
        assert text in capsys.readouterr().err


def test_averages_say_which_metrics_they_mix(zoo: Zoo) -> None:
    for name, metric in (("a", "accuracy"), ("b", "accuracy"), ("c", "pearson")):
        described = {**task(name), "headline": metric, "metrics": [metric]}
        scores = {"test": {metric: {"value": 0.5, "stderr": 0.1, "n": 4}}}
        put(zoo, numbers(3), task=described, metrics=scores, training=training(1, 1), seed=0)
    (table,) = suite_tables(zoo.entries())
    assert table.to_dict()["average_of"] == {"accuracy": 2, "pearson": 1}
    assert "average of accuracy (2), pearson (1); trained/task" in render_suite(table)
