"""``mtl.compose --rows``: ordinary runs at several numbers of rows, their table and picture."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_bench import TARGET, digests, entries, manifest, mtl, refused

from mtl.report import suite_tables
from mtl.report.curve import curves
from mtl.zoo import open_zoo

QUICK = ["--max-steps", "4", "--eval-every", "2"]
OWN = ["--own-set", "max_steps=4", "eval_every=2"]
LINE = ["--target", TARGET, "--rows", "16,32", "--seeds", "0", "1", *QUICK, *OWN]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def test_a_curve_is_made_of_ordinary_runs(stocked: Path, here: Path) -> None:
    before = digests(stocked)
    planned = mtl("compose", *LINE, "--dry-run", "--json").json
    states = [(row["method"], row["train"], row["state"]) for row in planned["runs"]]
    assert states == [
        (method, rows, state)
        for rows in (16, 32)
        for method, state in (("pfeiffer", "missing"), ("scalearn", "waiting"))
        for _ in range(2)
    ]
    assert digests(stocked) == before

    said = mtl("compose", *LINE, "--json")
    assert said.code == 0, said
    found = said.json
    assert [row["status"] for row in found["runs"]] == ["done"] * 8
    assert (here / "same-scalearn-rows.png").read_bytes().startswith(b"\x89PNG")
    assert found["picture"] == "same-scalearn-rows.png"
    # each composition used the own adapter of its own rows, of the seed of the sources
    refs = {(row["method"], row["seed"]): [] for row in found["runs"]}  # type: dict[Any, list[str]]
    for row in found["runs"]:
        refs[row["method"], row["seed"]].append(row["ref"])
    for place, rows in enumerate((16, 32)):
        for seed in (0, 1):
            run = manifest(stocked, refs["scalearn", seed][place])
            own = manifest(stocked, refs["pfeiffer", 0][place])
            assert run["data"]["sizes"]["train"] == own["data"]["sizes"]["train"] == rows
            assert run["parents"][-1]["digest"] == own["digest"]
            assert {p["ref"] for p in run["parents"][:-1]} < set(before)
    # as typed by hand
    limit = ["--max-train-samples", "16", *QUICK, "--dry-run", "--json"]
    by_hand = mtl("train", "--task", TARGET, "--seeds", "0", "1", *limit).json["runs"]
    by_hand += mtl("compose", "--target", TARGET, "--seeds", "0", "1", *limit).json["runs"]
    assert {row["state"] for row in by_hand} == {"done"}
    assert [row["ref"] for row in by_hand] == [row["ref"] for row in found["runs"][:4]]

    # what the curve says is what the entries say
    points = {point["rows"]: point for point in found["curve"]["points"]}
    assert list(points) == [16, 32]
    for place, rows in enumerate((16, 32)):
        scores = {
            method: [
                manifest(stocked, refs[method, seed][place])["metrics"]["test"]["accuracy"]["value"]
                for seed in (0, 1)
            ]
            for method in ("pfeiffer", "scalearn")
        }
        gains = [b - a for a, b in zip(scores["pfeiffer"], scores["scalearn"], strict=True)]
        point = points[rows]
        assert point["own"]["test"]["mean"] == pytest.approx(sum(scores["pfeiffer"]) / 2)
        assert point["composed"]["test"]["mean"] == pytest.approx(sum(scores["scalearn"]) / 2)
        assert point["composed"]["gain"]["mean"] == pytest.approx(sum(gains) / 2)
        assert point["composed"]["gain"]["n"] == 2

    again = mtl("compose", *LINE, "--json").json
    assert {row["status"] for row in again["runs"]} == {"skipped"}
    assert again["curve"] == found["curve"]
    # drawn again from the zoo alone; the caption is in the picture
    drawn = mtl("report", "--target", TARGET, "--curve", "again.png", "--json").json
    assert drawn["curve"] == found["curve"]
    caption = found["curve"]["caption"]
    assert "means over 2 seeds" in caption
    assert f"Test accuracy of {TARGET} (40 rows) with 16, 32 training rows" in caption
    assert caption.encode("latin-1", "replace")[:60] in (here / "again.png").read_bytes()
    text = mtl("report", "--target", TARGET, "--curve", "again.png").out
    assert [line.split()[0] for line in text.splitlines()[2:4]] == ["16", "32"]


def test_all_rows_are_the_run_without_a_limit(
    stocked: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own,) = [ref for ref in digests(stocked) if "/same/" in ref]
    line = ["--target", TARGET, "--rows", "96", "500", *QUICK, "--curve", "a.png"]
    said = mtl("compose", *line, "--json")
    assert said.code == 0, said
    assert said.json["left_out"] == f"{TARGET} has 96 training rows; there is no point at 500"
    assert "no point at 500" in said.err
    assert not any("best_on_dev" in row for row in said.json["runs"])  # nothing is chosen
    first, second = said.json["runs"]
    assert (first["ref"], first["status"]) == (own, "skipped")
    assert manifest(stocked, second["ref"])["run_settings"]["max_train_samples"] == 0
    monkeypatch.delenv("MTL_QUIET")
    again = mtl("compose", *line)
    # told first: what the own adapters train at, which is not what was asked of the composition
    assert "note: max_steps, eval_every: of the compositions only" in again.err
    own_block, composed_block = again.err.split("base  ")[1:]
    assert "method    pfeiffer" in own_block
    assert "max_steps=4" not in own_block
    assert "method    scalearn" in composed_block
    assert "max_steps=4" in composed_block
    text = again.out
    assert "one seed, so without intervals" in text
    assert "picture: a.png" in text
    assert "best on dev" not in text
    refused(mtl("report", "--target", TARGET, "--curve", "b.png"), "there is no curve")


def test_without_own_and_by_the_seed_of_the_run(stocked: Path, here: Path) -> None:
    """The own adapter is what a curve is compared with, whether it is a source or not."""
    line = ["--target", TARGET, "--rows", "16", *QUICK, *OWN, "--json"]
    said = mtl("compose", *line, "--without-own", "--seeds", "3")
    assert said.code == 0, said
    own, composed = said.json["runs"]
    assert (own["method"], own["seed"], composed["seed"]) == ("pfeiffer", 3, 3)
    parents = manifest(stocked, composed["ref"])["parents"]
    assert [parent["task"] for parent in parents] == ["mini/mood", "mini/shared"]
    said = mtl("compose", *line, "--sources", TARGET, "--source-seed", "run", "--seeds", "3", "4")
    assert said.code == 0, said
    runs = said.json["runs"]
    assert [row["method"] for row in runs] == ["pfeiffer"] * 2 + ["scalearn"] * 2
    for own, composed in zip(runs[:2], runs[2:], strict=True):
        (parent,) = manifest(stocked, composed["ref"])["parents"]
        assert parent["ref"] == own["ref"]
    (point,) = said.json["curve"]["points"]
    assert point["composed"]["compared"] == [3, 4]


def test_other_sources_are_looked_at_before_anything_trains(mini: Path, here: Path) -> None:
    refused(mtl("compose", *LINE), "mini/mood (pfeiffer)", "Train them")
    assert not entries(mini)
    plan = mtl("compose", *LINE, "--train-missing", "--dry-run", "--json").json["runs"]
    assert [row["task"] for row in plan[:2]] == ["mini/mood", "mini/shared"]
    assert {row["state"] for row in plan if row["method"] == "scalearn"} == {"waiting"}


def test_a_curve_with_its_control_beside_it(stocked: Path, here: Path) -> None:
    line = [*LINE, "--control", "permuted"]
    plan = mtl("compose", *line, "--dry-run", "--json").json["runs"]
    waiting = [(row["method"], row["train"]) for row in plan if row["state"] == "waiting"]
    for rows in (16, 32):
        assert waiting.count(("scalearn", rows)) == 2
        assert waiting.count(("scalearn (control)", rows)) == 2
    said = mtl("compose", *line, "--json")
    assert said.code == 0, said
    found = said.json
    assert [row["status"] for row in found["runs"]] == ["done"] * 12
    scores = {}
    for entry in open_zoo(stocked).entries(method="scalearn"):
        manifest = entry.manifest
        key = (manifest.data["sizes"]["train"], manifest.seed, manifest.control)
        scores[key] = manifest.metrics["test"]["accuracy"]["value"]
    for point in found["curve"]["points"]:
        rows, over = point["rows"], point["composed"]["controls"]["permuted"]
        each = [scores[rows, seed, ""] - scores[rows, seed, "permuted"] for seed in (0, 1)]
        assert over["mean"] == pytest.approx(sum(each) / 2)
    by_hand = [*LINE[:2], "--max-train-samples", "16", "--seeds", "0", "1", *QUICK]
    own = [run["ref"] for run in found["runs"] if "pfeiffer" in run["ref"]]
    name = f"{TARGET}:pfeiffer/{own[0].rpartition('/')[2]}"
    again = mtl("compose", *by_hand, "--sources", "all", name, "--control", "permuted", "--json")
    assert [row["status"] for row in again.json["runs"]] == ["skipped"] * 2
    shown = mtl("report", "--target", TARGET, "--curve", "a.png").out
    assert "gain over permuted twins" in shown
    without = mtl("report", "--target", TARGET, "--curve", "a.png", "--json").json["curve"]
    assert without == found["curve"]


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        (["--rows", "16,16"], ["16", "named twice"]),
        (["--rows", "0"], ["0", "below 1"]),
        (["--rows", "many"], ["whole numbers", "'many'"]),
        (["--rows", "500"], ["96 training rows", "500"]),
        (["--rows", "16", "--shots", "8"], ["run.shots", "give one"]),
        (["--rows", "16", "--max-train-samples", "8"], ["run.max_train_samples"]),
        (["--rows", "16", "--own-set", "max_eval_samples=8"], ["max_eval_samples", "same rows"]),
        (["--rows", "16", "--own-set", "nothing=8"], ["nothing"]),
        (["--rows", "16", "--probe", "0", "1"], ["probe"]),
        (["--rows", "16", "--sources", f"{TARGET}:pfeiffer/seed0"], [f"{TARGET}:pfeiffer."]),
        (["--curve", "a.png"], ["--curve", "--rows"]),
        (["--own-set", "lr=1"], ["--own-set", "--rows"]),
    ],
)
def test_what_makes_no_curve(stocked: Path, more: list[str], parts: list[str]) -> None:
    before = digests(stocked)
    refused(mtl("compose", "--target", TARGET, *more), *parts)
    assert digests(stocked) == before


def test_a_suite_table_leaves_curves_to_the_curve(stocked: Path, here: Path) -> None:
    """Whether it is asked for 16 rows, or for all; other variants are named as ever."""
    plain = ["report", "--suite", "mini"]
    line = [*LINE[:2], "--seeds", "0", "1", *QUICK]  # own adapters trained as those that are there
    assert mtl("compose", *line).code == 0  # on all rows
    before = mtl(*plain, "--json").json["suites"]
    assert mtl("compose", *line, "--rows", "16,32").code == 0
    (table,) = mtl(*plain, "--json").json["suites"]
    assert table["rows"] == before[0]["rows"]
    assert not [note for note in table["notes"] if "variants" in note]
    assert [note for note in table["notes"] if "8 runs of learning curves" in note]
    few = [e for e in open_zoo(stocked).entries() if e.manifest.data["sizes"]["train"] == 16]
    (asked,) = suite_tables(few)
    assert [len(row.scores) for row in asked.rows] == [1, 1]
    assert not asked.notes


def test_curves_of_a_zoo_are_told_apart(stocked: Path, here: Path) -> None:
    for method in ("scalearn-uniform", "average"):
        assert mtl("compose", *LINE, "--method", method).code == 0
    found = curves(open_zoo(stocked).entries())
    assert sorted(curve.method for curve in found) == ["average", "scalearn-uniform"]
    said = mtl("report", "--target", TARGET, "--curve", "a.png")
    refused(said, "2 fit", "--entry", "at 16, 32 rows")
    for method in ("scalearn-uniform", "average"):
        (ref,) = [line.split()[0] for line in said.err.splitlines() if f"/{method}/" in line]
        line = ["report", "--target", TARGET, "--curve", "a.png", "--json"]
        assert mtl(*line, "--entry", ref).json["curve"]["method"] == method
        assert mtl(*line, "--method", method).json["curve"]["method"] == method
    refused(mtl("report", "--curve", "a.png", "--heatmap", "b.png"), "--heatmap")
