"""``mtl.graph suggest``: every score of every source, and what cannot be scored."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from cli_bench import digests, entries, mtl, refused, write_spans
from suggest_bench import compose, suggest

SCORES = (
    "tfidf", "textemb", "logme", "probe", "weights", "esm", "hscore", "knn", "taskemb",
)  # fmt: skip


def test_suggest_scores_every_candidate_and_keeps_the_evidence(stocked: Path) -> None:
    before = digests(stocked)
    found = suggest()
    assert set(found["values"]) == {"mini/mood", "mini/shared"}
    assert set(found["values"]["mini/mood"]) == set(SCORES)
    assert set(found["base"]) == {"logme", "probe", "esm", "hscore", "knn"}
    assert (found["rows"], found["left_out"]) == (96, {})
    assert all(skipped == {} for skipped in found["skipped"].values())
    again = suggest()
    assert again == found  # from the cache, to the last digit
    files = list((stocked.with_name("zoo.graph") / "evidence").glob("suggest-*.json"))
    assert len(files) == 1
    edges = mtl("graph", "show", "--json").json["edges"]
    assert {edge["source"] for edge in edges} == {"mini/mood", "mini/shared"}
    assert {item["kind"] for edge in edges for item in edge["evidence"]} == {"predicted"}
    values = {i["method"]: i["value"] for e in edges[:1] for i in e["evidence"]}
    assert values == found["values"][edges[0]["source"]]
    assert digests(stocked) == before
    table = mtl("graph", "suggest", "--target", "same", "--scores", "logme,tfidf").out
    assert "(plain base)" in table
    assert "No training run was needed" in table
    assert not list((stocked.parent / "runs").glob("*"))


def test_scores_of_bf16_passes_say_so(stocked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mtl.compose import halving

    def evidence() -> list[dict[str, Any]]:
        files = sorted((stocked.with_name("zoo.graph") / "evidence").glob("suggest-*.json"))
        return [json.loads(path.read_text())["evidence"][0]["provenance"] for path in files]

    exact = suggest("--scores", "textemb")
    assert (exact["precision"], exact["self_test"]) == ("fp32", None)
    assert not {"precision", "self_test"} & evidence()[0].keys()
    monkeypatch.setattr(halving, "cpu_has_bf16", lambda: True)
    monkeypatch.setattr(halving, "WORTH", 1)
    monkeypatch.setattr(halving, "ROWS", 16)
    monkeypatch.setattr(halving, "SHARE", 0.5)
    half = suggest("--scores", "textemb")
    assert half["precision"] == "bf16", half
    assert half["self_test"]["equal"] is True
    assert half["self_test"]["split"] == "dev"
    for task, values in exact["values"].items():
        assert half["values"][task]["textemb"] != values["textemb"]
        assert half["values"][task]["textemb"] == pytest.approx(values["textemb"], abs=0.05)
    assert sorted(said.get("precision", "fp32") for said in evidence()) == ["bf16", "fp32"]
    assert suggest("--scores", "textemb") == half  # kept, and found again
    assert suggest("--scores", "textemb", "--precision", "fp32") == exact
    asked = suggest("--scores", "textemb", "--precision", "bf16")
    assert (asked["values"], asked["self_test"]) == (half["values"], None)
    assert (
        "passes in bf16: on 16 dev rows no score moved"
        in mtl("graph", "suggest", "--target", "same", "--scores", "textemb").out
    )
    monkeypatch.setattr(halving, "SHARE", 0.0)
    strict = suggest("--scores", "textemb")
    assert (strict["precision"], strict["values"]) == ("fp32", exact["values"])
    assert "textemb moved by" in strict["self_test"]["reason"]
    assert any("self_test" in said and "precision" not in said for said in evidence())


def test_auto_scores_in_the_precision_of_the_run(
    stocked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtl.compose.scene import Scene

    seen, real = [], Scene.extractor

    def extractor(self: Scene) -> Any:
        made = real(self)
        seen.append((self.precision, made.device.precision))
        return made

    monkeypatch.setattr(Scene, "extractor", extractor)
    line = ["compose", "--target", "same", "--sources", "auto", "--suite", "mini", "--dry-run"]
    for precision in ("auto", "fp32", "bf16"):
        said = mtl(*line, "--precision", precision)
        assert said.code == 0, said
    assert seen == [("auto", "fp32"), ("fp32", "fp32"), ("bf16", "bf16")]


def test_what_suggest_cannot_score_is_named(stocked: Path, tiny: Any) -> None:
    found = suggest("--max-train-samples", "40", "--scores", "weights", "logme")
    for skipped in found["skipped"].values():
        assert skipped == {"weights": "the zoo has no adapter of the target on these rows"}
    (mood,) = [path for path in entries(stocked) if "/mood/" in str(path)]
    shutil.rmtree(mood)
    found = suggest("--scores", "logme")
    assert found["left_out"] == {"mini/mood": "not in the zoo (pfeiffer, seed 0)"}
    other = suggest("--scores", "logme", "--model", tiny("bert"))
    assert other["values"] == {}
    assert "of another base: tiny-roberta" in other["left_out"]["mini/shared"]
    table = mtl("graph", "suggest", "--target", "same", "--model", tiny("bert"))
    assert "No candidate could be scored." in table.out
    assert "left out: mini/shared: of another base" in table.out
    (shared,) = [path for path in entries(stocked) if "/shared/" in str(path)]
    (shared / "adapter.safetensors").write_bytes(b"no")
    found = suggest("--scores", "tfidf", "knn", "--rows", "50")
    assert "is damaged" in found["skipped"]["mini/shared"]["knn"]
    assert set(found["values"]["mini/shared"]) == {"tfidf"}


def test_a_regression_target(stocked: Path) -> None:
    said = mtl("graph", "suggest", "--target", "shared", "--json").json
    assert said["skipped"]["mini/mood"] == {"hscore": "not defined for regression targets"}
    assert set(said["values"]["mini/mood"]) == set(SCORES) - {"hscore"}


def test_a_target_whose_rows_are_cut_into_windows(
    stocked: Path, suite_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a row has no vector of its own: refused by name, as target and as a source."""
    folder = tmp_path / "tasks" / "mini"
    shutil.copytree(suite_folder, folder)
    write_spans(folder)
    monkeypatch.setenv("MTL_TASKS", str(folder))
    refused(mtl("graph", "suggest", "--target", "spans"), "mini/spans", "cut into windows")


def test_suggest_refuses(stocked: Path) -> None:
    refused(mtl("graph", "suggest"), "--target")
    refused(mtl("graph", "suggest", "--target", "same", "--scores", "logm"), "'logm'", "'logme'")
    refused(mtl("graph", "suggest", "--target", "same", "--scores", "knn,knn"), "knn twice")
    refused(mtl("graph", "suggest", "--target", "same", "--rows", "1"), "--rows 1")
    refused(mtl("graph", "suggest", "--target", "same", "--sources", "moo"), "'moo'", "mini/mood")


def test_features_with_nan_are_skipped_by_name(
    stocked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An encoder with one broken adapter: nothing of it is scored, the others are."""
    from mtl.compose.features import Extractor

    real = Extractor.source_vectors

    def broken(self: Any, entry: Any, few: Any) -> Any:
        found = real(self, entry, few)
        if "/mood/" in entry.ref:
            found["first"][3, 1] = float("nan")
        return found

    monkeypatch.setattr(Extractor, "source_vectors", broken)
    found = suggest()
    for score in ("logme", "probe", "hscore", "knn"):
        assert found["skipped"]["mini/mood"][score] == "features holds 1 values that are not finite"
        assert score in found["values"]["mini/shared"]
    assert found["skipped"]["mini/mood"]["esm"] == "the source's vectors are not finite"
    stored = mtl("graph", "show", "--json").json["edges"]
    methods = {i["method"] for e in stored if e["source"] == "mini/mood" for i in e["evidence"]}
    assert methods == {"tfidf", "textemb", "weights", "taskemb"}
    selection = compose("--sources", "auto")["selection"]
    assert "no logme: features holds 1 values" in selection["no_candidates"]["mini/mood"]


def test_suggest_finds_the_own_adapter_by_the_targets_own_protocol(
    stocked: Path, suite_folder: Path, tmp_path: Path
) -> None:
    """The suite's sources are split by its protocol, a target outside by its own."""
    task = tmp_path / "mine.yaml"
    task.write_text(
        f"id: my/mine\ndata: {{files: {{train: {suite_folder / 'same_train.csv'}}}}}\n"
        'kind: classification\ninputs: ["{a}", "{b}"]\nlabels: [other, same]\n'
        "metrics: [accuracy]\nmax_length: 32\n"
    )
    line = ["--target", task, "--suite", "mini", "--scores", "weights", "--json"]
    before = mtl("graph", "suggest", *line).json
    assert all("no adapter of the target" in why["weights"] for why in before["skipped"].values())
    own = ["--task", task, "--epochs", "1", "--set", "reduction_factor=4", "--json"]
    assert mtl("train", *own).code == 0
    after = mtl("graph", "suggest", *line).json
    assert set(after["values"]) == {"mini/same", "mini/mood", "mini/shared"}
    assert all("weights" in values for values in after["values"].values()), after
