"""Intervals, paired gains, the result table and the heat map."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from zoo_bench import MARK, base, composition, manifest, store, task

from mtl.cli.main import dispatch
from mtl.errors import RequestError
from mtl.report import (
    draw_heatmap,
    mean_interval,
    paired_bootstrap,
    paired_gain,
    render,
    results,
    source_weights,
    suite_tables,
)
from mtl.report.tables import having
from mtl.zoo import Entry, Predictions, Zoo, open_zoo


def test_student_interval_by_hand() -> None:
    # mean 2, s = 1, n = 3, t(0.975, 2) = 4.302653
    found = mean_interval([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.half == pytest.approx(4.302653 / 3**0.5, rel=1e-6)
    assert (found.low, found.n) == (pytest.approx(2 - 4.302653 / 3**0.5), 3)
    one = mean_interval([0.5])
    assert (one.mean, one.low, one.high, one.half) == (0.5, None, None, None)


def test_quantiles_are_those_of_scipy() -> None:
    """Taken from scipy.special, which is there sooner."""
    from scipy.stats import t, ttest_1samp

    from mtl.report.stats import t_above, t_beyond, zero_p

    for df in (1, 2, 4.5, 9, 1000):
        assert t_above(0.025, df) == pytest.approx(t.isf(0.025, df), rel=1e-12)
        assert t_beyond(1.7, df) == pytest.approx(t.sf(1.7, df), rel=1e-12)
        assert t_beyond(-1.7, df) == pytest.approx(t.sf(-1.7, df), rel=1e-12)
    values = [0.1, 0.4, -0.2, 0.7]
    assert zero_p(values) == pytest.approx(ttest_1samp(values, 0.0).pvalue)
    assert zero_p([0.3]) is None
    assert zero_p([0.3, 0.3]) is None


def test_gain_is_paired_by_seed() -> None:
    own = {0: 0.1, 1: 0.5, 2: 0.9, 9: 0.0}
    composed = {0: 0.2, 1: 0.6, 2: 1.0, 8: 5.0}
    gain = paired_gain(own, composed)
    assert gain is not None
    assert gain.n == 3
    assert gain.mean == pytest.approx(0.1)
    assert gain.half == pytest.approx(0.0, abs=1e-12)  # the spread of the seeds cancels
    assert paired_gain({0: 1.0}, {1: 1.0}) is None


def predictions(right: np.ndarray) -> Predictions:
    rows = np.arange(len(right))
    label = np.ones(len(right), np.int64)
    return Predictions(rows, label, right.astype(np.int64), np.zeros((len(right), 2), np.float32))


def test_bootstrap_over_examples() -> None:
    rng = np.random.default_rng(0)
    own = [predictions(rng.random(400) < 0.5) for _ in range(3)]
    better = [predictions(rng.random(400) < 0.7) for _ in range(3)]
    low, high = paired_bootstrap("accuracy", own, better) or (0.0, 0.0)
    gain = np.mean(
        [b.prediction.mean() - a.prediction.mean() for a, b in zip(own, better, strict=True)]
    )
    assert 0 < low < gain < high
    same = paired_bootstrap("accuracy", own, own)
    assert same == (0.0, 0.0)
    # three seeds of 400 paired examples: the binomial error of the mean, give or take
    assert (high - low) / 2 == pytest.approx(1.96 * (0.46 / 1200) ** 0.5, rel=0.35)
    assert paired_bootstrap("accuracy", own, better[:2]) is None
    assert paired_bootstrap("accuracy", [], []) is None


@pytest.fixture
def zoo(tmp_path: Path) -> Zoo:
    return open_zoo(tmp_path / "zoo")


def filled(zoo: Zoo) -> list[Entry]:
    """Own adapters of two seeds, and compositions of two seeds that use the first of them."""

    def scored(value: float) -> dict[str, object]:
        return {"test": {"accuracy": {"value": value, "stderr": 0.1, "n": 4}}}

    own = [
        store(zoo, manifest(seed=seed, runhash=f"{seed:016x}", metrics=scored(0.5)))
        for seed in (0, 1)
    ]
    other = store(zoo, manifest(task=task("other")))
    omega = np.stack([np.full((2, 3), 0.25), np.array([[1.0] * 3, [-1.0] * 3])])
    for seed, value in ((0, 0.7), (1, 0.9)):
        composition(
            zoo,
            [other, own[0]],
            omega.astype(np.float32),
            seed=seed,
            runhash=f"{seed + 100:016x}",
            metrics=scored(value),
        )
    return zoo.entries(task="toy/own")


def test_results_compare_with_the_own_adapter(zoo: Zoo) -> None:
    rows = results(filled(zoo))
    assert [(row.method, row.seeds, row.sources) for row in rows] == [
        ("pfeiffer", [0, 1], 0),
        ("scalearn", [0, 1], 2),
    ]
    own, composed = rows
    assert own.gain is None
    assert composed.gain is not None
    assert composed.gain.mean == pytest.approx(0.3)
    assert composed.gain.n == 2
    assert composed.gain_examples is not None
    text = render(rows)
    assert "scalearn (K=2)" in text
    assert "+0.3000 ±" in text
    assert json.dumps([row.to_dict() for row in rows])


def test_runs_without_a_test_value_are_listed(zoo: Zoo) -> None:
    nothing = {"value": None, "stderr": None, "n": 4}
    own = store(zoo, manifest(metrics={"test": {"accuracy": nothing}}))
    composition(zoo, [own], np.ones((2, 1, 3), np.float32))
    rows = results(zoo.entries())
    assert [(row.method, row.test is None, row.seeds) for row in rows] == [
        ("pfeiffer", True, []),
        ("scalearn", False, [0]),
    ]
    assert rows[1].gain is None
    assert "–" in render(rows).splitlines()[2]
    assert rows[0].to_dict()["test"] is None


def test_rows_of_one_label_say_what_differs(zoo: Zoo) -> None:
    described = manifest()
    store(zoo, described)
    settings = {**described.run_settings, "lr": 0.125, "max_train_samples": 7}
    store(zoo, manifest(seed=1, runhash="77" * 8, run_settings=settings))
    store(zoo, manifest(method="houlsby", runhash="78" * 8))
    rows = results(zoo.entries())
    assert [set(row.settings) for row in rows if row.method == "pfeiffer"] == [{"lr"}, {"lr"}]
    assert [row.settings for row in rows if row.method == "houlsby"] == [{}]
    assert "pfeiffer lr=0.125" in render(rows)
    assert "houlsby lr" not in render(rows)


def test_a_setting_left_out_at_its_default_has_a_name(zoo: Zoo) -> None:
    described = manifest()
    assert "class_weights" not in described.run_settings
    store(zoo, described)
    settings = {**described.run_settings, "class_weights": "balanced"}
    store(zoo, manifest(seed=1, runhash="77" * 8, run_settings=settings))
    found = [row.settings["class_weights"] for row in results(zoo.entries())]
    assert sorted(found) == ["balanced", "none"]
    (usual,) = having(zoo.entries(), ["class_weights=none"])
    assert usual.manifest.run_settings == described.run_settings


def test_bases_are_told_apart(zoo: Zoo) -> None:
    described = manifest()
    store(zoo, described)
    other = base("12" * 32)
    store(zoo, manifest(base=other, runhash="f" * 16))
    text = render(results(zoo.entries()))
    assert f"tiny {MARK}" in text
    assert f"tiny {other['fingerprint'][:8]}" in text
    assert "tiny" not in render(results(zoo.entries(base=MARK)))


def test_tables_say_how_states_were_selected(zoo: Zoo) -> None:
    of = manifest().training
    for number, by in enumerate(("dev loss", "dev loss", "last step")):
        described = manifest(
            task=task(("a", "b", "c")[number]),
            runhash=f"{number:016x}",
            training={**of, "selected_by": by},
        )
        store(zoo, described)
    rows = {row.task: row.selected_by for row in results(zoo.entries())}
    assert rows == {"toy/a": "dev loss", "toy/b": "dev loss", "toy/c": "last step"}
    line = next(line for line in render(results(zoo.entries())).splitlines() if "toy/c" in line)
    assert line.split()[-2:] == ["last", "step"]
    (table,) = suite_tables(zoo.entries())
    assert table.notes == ("states were selected by dev loss; pfeiffer on toy/c by last step",)
    (table,) = suite_tables([*zoo.entries(task="toy/a"), *zoo.entries(task="toy/b")])
    assert table.notes == ()


def test_weights_per_source_and_layer(zoo: Zoo, tmp_path: Path) -> None:
    entries = [entry for entry in filled(zoo) if entry.manifest.kind == "composition"]
    matrix, names, layers = source_weights(entries[0])
    assert names == ["other", "own"]
    assert layers == ["0", "1"]
    assert matrix.tolist() == [[0.25, 1.0], [0.25, -1.0]]
    path = tmp_path / "deep" / "omega.png"
    draw_heatmap(entries, path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 5000
    with pytest.raises(RequestError, match="no composition"):
        draw_heatmap([], path)


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(RequestError, match="pip install matplotlib"):
        draw_heatmap([], tmp_path / "x.png")


def test_command_line(zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = ["--zoo", str(zoo.root)]
    assert dispatch("report", at) == 2
    assert "mtl.train" in capsys.readouterr().err
    filled(zoo)
    path = tmp_path / "omega.png"
    assert dispatch("report", [*at, "--target", "own", "--heatmap", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["method"] for row in found["rows"]] == ["pfeiffer", "scalearn"]
    assert path.is_file()
    assert dispatch("report", [*at, "--heatmap", str(path), "--method", "fusion"]) == 2
    assert "no composition of fusion to draw; there is scalearn" in capsys.readouterr().err
    assert dispatch("report", [*at, "--seeds", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {tuple(row["seeds"]) for row in found["rows"]} == {(1,)}
    assert dispatch("report", [*at, "--seeds", "5"]) == 2
    assert "--seeds 5" in capsys.readouterr().err
    assert dispatch("report", [*at, "--suite", "toy"]) == 0
    assert "gain over own adapter" in capsys.readouterr().out


def test_the_heat_map_of_one_of_several_compositions(
    zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtl.report import heatmap

    filled(zoo)
    sources = zoo.entries(kind="adapter")
    third = composition(zoo, sources, np.full((2, 3, 3), 0.5, np.float32), runhash="cc" * 8)
    drawn: list[list[str]] = []
    real = heatmap.draw_heatmap

    def draw(entries: Sequence[Entry], path: Path) -> None:
        drawn.append(sorted(entry.ref for entry in entries))
        real(entries, path)

    monkeypatch.setattr(heatmap, "draw_heatmap", draw)
    at = ["--zoo", str(zoo.root), "--heatmap", str(tmp_path / "omega.png")]

    def refused(*argv: str) -> str:
        assert dispatch("report", [*at, *argv]) == 2
        return capsys.readouterr().err

    said = refused()
    assert "2 of scalearn fit. Say which with --entry:" in said
    assert f"{third.ref}  3 sources" in said
    assert "2 sources" in said
    assert not (tmp_path / "omega.png").exists()
    assert dispatch("report", [*at, "--entry", third.ref]) == 0
    assert drawn.pop() == [third.ref]
    pair = [e for e in zoo.entries(kind="composition") if e.ref != third.ref]
    assert dispatch("report", [*at, "--entry", pair[0].digest[:12]]) == 0
    assert drawn.pop() == sorted(entry.ref for entry in pair)  # over its seeds
    assert dispatch("report", [*at, "--entry", pair[0].ref, "--seeds", "0"]) == 0
    assert len(drawn.pop()) == 1
    capsys.readouterr()
    assert "is no composition" in refused("--entry", sources[0].ref)
    assert "not of --method fusion" in refused("--entry", third.ref, "--method", "fusion")
    assert "is not among what" in refused("--entry", third.ref, "--target", "other")
    assert "There is no entry" in refused("--entry", "nothing/here")
    assert dispatch("report", ["--zoo", str(zoo.root), "--entry", third.ref]) == 2
    assert "give --heatmap PNG" in capsys.readouterr().err


def test_dev_stands_beside_test_and_picks(
    zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def on_dev(dev: float | None, test: float) -> dict[str, object]:
        metric = {"stderr": 0.1, "n": 4}
        found: dict[str, object] = {"test": {"accuracy": {"value": test, **metric}}}
        return found if dev is None else {**found, "dev": {"accuracy": {"value": dev, **metric}}}

    for number, (lr, dev, test) in enumerate(((0.1, 0.6, 0.9), (0.2, 0.8, 0.5), (0.3, 0.7, 1.0))):
        metrics, runhash = on_dev(dev, test), f"{number:08x}" * 2
        store(zoo, manifest(run_settings={"lr": lr}, metrics=metrics, runhash=runhash))
    rows = results(zoo.entries())
    assert sorted(row.dev.mean for row in rows if row.dev) == [0.6, 0.7, 0.8]
    assert "0.8000" in render(rows)
    (row,) = results(zoo.entries(), pick="best-dev")
    assert row.test is not None
    assert (row.test.mean, row.picked, row.settings) == (0.5, 3, {})
    assert "toy/own, pfeiffer: the best on dev of 3 variants" in render([row])
    assert dispatch("report", ["--zoo", str(zoo.root), "--pick", "best-dev", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["rows"]
    assert (found["dev"]["mean"], found["picked"]) == (0.8, 3)
    assert dispatch("zoo", ["ls", "--zoo", str(zoo.root), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["entries"]
    assert sorted(item["dev"] for item in listed) == [0.6, 0.7, 0.8]
    store(zoo, manifest(run_settings={"lr": 0.4}, metrics=on_dev(None, 0.3), runhash="d" * 16))
    assert [row.picked for row in results(zoo.entries(), pick="best-dev")] == [0] * 4
    assert dispatch("zoo", ["ls", "--zoo", str(zoo.root), "--json"]) == 0
    assert None in [item["dev"] for item in json.loads(capsys.readouterr().out)["entries"]]


def test_dev_picks_what_is_drawn(
    zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = store(zoo, manifest(task=task("other")))
    for lr, dev in ((0.1, 0.6), (0.2, 0.8)):
        metric = {"value": dev, "stderr": 0.1, "n": 4}
        composition(
            zoo,
            [source],
            np.full((2, 1, 3), lr, np.float32),
            run_settings={"lr": lr},
            runhash=f"{int(lr * 10):08x}" * 2,
            metrics={"dev": {"accuracy": metric}, "test": {"accuracy": metric}},
        )
    line = ["--zoo", str(zoo.root), "--target", "own", "--heatmap", str(tmp_path / "a.png")]
    assert dispatch("report", line) == 2
    assert "2 of scalearn fit" in capsys.readouterr().err
    assert dispatch("report", [*line, "--pick", "best-dev"]) == 0
    from mtl.cli.report import runs_to_draw

    (drawn,) = runs_to_draw(zoo.entries(), None, None, "best-dev")
    assert drawn.manifest.run_settings == {"lr": 0.2}
