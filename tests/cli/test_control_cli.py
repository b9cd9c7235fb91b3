"""``--control``: from the command line and from Python to entries that nothing takes for others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cli_bench import mtl, refused

import mtl as face
from mtl.zoo import open_zoo

LINE = ["--target", "same", "--epochs", "2"]


@pytest.fixture(scope="module")
def measured(
    trained: Path,
    suite_folder: Path,
    tiny: object,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A zoo with ScaLearn over all sources and its control, two seeds each; do not change it."""
    root = tmp_path_factory.mktemp("measured")
    shutil.copytree(trained, root / "zoo")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("TASKS", suite_folder), ("CACHE", root / "c"), ("RUNS", root / "r")):
            patch.setenv(f"MTL_{name}", str(value))
        patch.setenv("MTL_MODEL", tiny("roberta"))  # type: ignore[operator]
        patch.setenv("MTL_ZOO", str(root / "zoo"))
        for more in ([], ["--control", "permuted"]):
            said = mtl("compose", *LINE, "--seeds", "0", "1", *more)
            assert said.code == 0, said
    return root / "zoo"


def test_a_control_ends_with_what_it_was_made_for(
    mini: Path, trained: Path, controlled: Path
) -> None:
    again = ["compose", *LINE, "--seeds", "0", "1", "--control"]
    said = mtl(*again, "permuted")
    assert "same: composed − control (permuted): " in said.out
    assert "2 seeds" in said.out.splitlines()[-1]
    shutil.rmtree(mini)
    shutil.copytree(trained, mini)
    said = mtl(*again, "gaussian")
    assert "a control tells nothing alone" in said.out
    assert "run the same command without --control" in said.out


@pytest.fixture
def controlled(mini: Path, measured: Path) -> Path:
    shutil.copytree(measured, mini)
    return mini


def test_a_control_is_a_run_of_its_own_that_says_so(controlled: Path) -> None:
    zoo = open_zoo(controlled)
    found = zoo.entries(kind="composition")
    real = {e.manifest.seed: e for e in found if e.manifest.composes}
    twins = {e.manifest.seed: e for e in found if e.manifest.control}
    assert real.keys() == twins.keys() == {0, 1}
    for seed, entry in twins.items():
        theirs, ours = entry.manifest, real[seed].manifest
        assert theirs.run_settings == {**ours.run_settings, "control": "permuted"}
        assert "control" not in ours.run_settings
        assert theirs.parents == ours.parents
        assert theirs.runhash != ours.runhash
        assert set(entry.files) == set(real[seed].files)  # nothing of the twins is stored
        assert "# Control of a composition (permuted)" in (entry.folder / "README.md").read_text()
        assert "model-index" not in (entry.folder / "README.md").read_text()
    again = mtl("compose", *LINE, "--seeds", "0", "1", "--control", "permuted")
    assert again.out.count("skipped") == 2
    assert zoo.get("same/scalearn/seed0").digest == real[0].digest
    assert zoo.get("same/scalearn-control/seed0").digest == twins[0].digest


def test_it_answers_as_stored_by_drawing_its_twins_again(controlled: Path, tmp_path: Path) -> None:
    entries = open_zoo(controlled).entries(kind="composition")
    control = next(e for e in entries if e.manifest.control)
    said = mtl("zoo", "verify", control.ref, "--json")
    assert said.code == 0, said
    assert mtl("zoo", "fsck").code == 0
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"a": "the cat sees a tree", "b": "some cat"}) + "\n")
    said = mtl("predict", control.ref, "--input", rows, "--output", tmp_path / "answers.jsonl")
    assert said.code == 0, said


def test_other_twins_answer_otherwise(stocked: Path) -> None:
    digests = {
        face.compose_adapters("mini/same", control=how, epochs=1).digest
        for how in ("permuted", "permuted:7", "gaussian", "rotated")
    }
    assert len(digests) == 4
    searched = face.compose_adapters("mini/same", sources="best", control="permuted", epochs=2)
    assert searched.manifest.control == "permuted:100"
    assert searched.manifest.training["choice"]["tried"]


def test_the_report_sets_composition_and_control_side_by_side(controlled: Path) -> None:
    rows = mtl("report", "--target", "same", "--json").json["rows"]
    assert [row["kind"] for row in rows] == ["adapter", "composition", "control"]
    scores = {
        (bool(e.manifest.control), e.manifest.seed): e.manifest.headline()["value"]  # type: ignore[index]
        for e in open_zoo(controlled).entries(kind="composition")
    }
    gain = rows[1]["controls"]["permuted"]
    mean = sum(scores[False, seed] - scores[True, seed] for seed in (0, 1)) / 2
    assert gain["mean"] == pytest.approx(mean)
    assert gain["n"] == 2
    assert rows[2]["controls"] == {}
    text = mtl("report", "--target", "same").out
    assert "gain over control" in text
    assert "control (permuted): scalearn (K=3)" in text
    assert "gain over control" not in mtl("report", "--target", "mood").out


def test_nothing_takes_it_for_a_composition(controlled: Path, tmp_path: Path) -> None:
    zoo = open_zoo(controlled)
    control = next(e for e in zoo.entries(kind="composition") if e.manifest.control)
    listed = mtl("zoo", "ls", "--kind", "composition", "--json").json["entries"]
    assert len(listed) == 2
    assert not any(row["control"] for row in listed)
    listed = mtl("zoo", "ls", "--kind", "control", "--json").json["entries"]
    assert {row["control"] for row in listed} == {"permuted"}
    assert "scalearn (control: permuted)" in mtl("zoo", "ls").out
    (table,) = mtl("report", "--suite", "mini", "--json").json["suites"]
    assert [(row["kind"], row["scores"]["mini/same"]["seeds"]) for row in table["rows"]] == [
        ("adapter", [0]),
        ("composition", [0, 1]),
    ]
    assert mtl("report", "--heatmap", tmp_path / "map.png", "--target", "same").code == 0
    ensemble = mtl("report", "--ensemble", "--target", "same", "--json").json["ensemble"]
    assert control.ref not in {*ensemble["members"], *ensemble["left_out"], ensemble["best"]}
    assert mtl("graph", "build").code == 0
    evidence = "".join(p.read_text() for p in controlled.parent.rglob("evidence/*.json"))
    assert evidence
    assert control.digest not in evidence
    refused(mtl("graph", "attribute", control.ref), "is a control (permuted)")
    refused(
        mtl("export", control.ref, tmp_path / "out", "--to", "adapters"), "is a control (permuted)"
    )


def test_wrong_requests(stocked: Path) -> None:
    refused(mtl("compose", *LINE, "--control", "permutd"), "Did you mean 'permuted'?")
    refused(mtl("compose", *LINE, "--control", "permuted:x"), "must be a number")
    refused(
        mtl("compose", *LINE, "--sources", "same", "--control", "permuted"), "is the only source"
    )


def test_a_control_of_a_stranger_is_read_strictly(controlled: Path) -> None:
    from mtl.compose.control import control_of
    from mtl.errors import ZooError

    entry = next(e for e in open_zoo(controlled).entries(kind="composition") if e.manifest.control)
    entry.manifest.run_settings["control"] = "__import__"
    with pytest.raises(ZooError, match="none of ours"):
        control_of(entry)
    entry.manifest.run_settings["control"] = ["permuted"]
    with pytest.raises(ZooError, match="none of ours"):
        control_of(entry)
