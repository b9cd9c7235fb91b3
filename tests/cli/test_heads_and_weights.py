"""``--head mean`` and ``--class-weights balanced`` from the command line into the zoo and back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from cli_bench import entries, mtl, refused
from safetensors.torch import load_file

MEAN = ["--head", "mean", "--max-steps", "2", "--json"]


def run(command: str, *line: object) -> dict[str, Any]:
    said = mtl(command, *line)
    assert said.code == 0, said
    found: dict[str, Any] = said.json["runs"][0]
    return found


def test_a_mean_head_is_stored_verified_and_predicted_with(
    stocked: Path, suite_folder: Path, tmp_path: Path
) -> None:
    ref = run("train", "--suite", "mini", "--task", "same", *MEAN)["ref"]
    config = json.loads((stocked / ref / "head_config.json").read_text())
    assert config["config"]["pooling"] == "mean"
    assert mtl("zoo", "verify", ref).code == 0
    line = ["--target", "same", "--suite", "mini", "--sources", "mood"]
    composed = run("compose", *line, *MEAN)["ref"]
    for name in (ref, composed):
        out = tmp_path / f"{name.rpartition('-')[2]}.csv"
        said = mtl("predict", name, "--input", suite_folder / "same_test.csv", "--output", out)
        assert said.code == 0, said
        kept = load_file(stocked / name / "predictions.safetensors")["prediction"].tolist()
        answers = [line.rpartition(",")[2] for line in out.read_text().splitlines()[1:]]
        assert answers == [("other", "same")[place] for place in kept]
        refused(
            mtl("export", name, tmp_path / "out", "--to", "adapters"),
            "its head reads the mean over the tokens",
            "--head two_layer",
        )
        assert not (tmp_path / "out").exists()
    from mtl.hub.stock import reader
    from mtl.zoo import open_zoo

    entry = open_zoo(stocked).get(ref)
    assert reader(entry.folder, entry.manifest) == "mtl"


def test_own_adapter_and_composition_start_from_the_same_mean_head(
    stocked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtl.backbone import heads

    started: list[list[Any]] = []
    real = heads.build_head

    def watched(*args: Any, **options: Any) -> Any:
        head = real(*args, **options)
        started.append([value.clone() for value in head.state_dict().values()])
        assert head.mean
        return head

    monkeypatch.setattr(heads, "build_head", watched)
    monkeypatch.setattr("mtl.backbone.build_head", watched, raising=False)
    run("train", "--suite", "mini", "--task", "same", *MEAN)
    run("compose", "--target", "same", "--suite", "mini", "--sources", "mood", *MEAN)
    said = mtl("joint", "--suite", "mini", "--method", "adapter-m", *MEAN)
    assert said.code == 0, said
    assert len(started) == 5  # own, composed, joint: one of each task
    own, composed, joint = started[:3]
    for one, two, three in zip(own, composed, joint, strict=True):
        assert (one == two).all()
        assert (one == three).all()
    assert mtl("zoo", "verify", said.json["runs"][0]["ref"]).code == 0


def skewed(folder: Path, suite_folder: Path) -> Path:
    """A copy of ``mini/same`` whose training rows are nearly all of one class."""
    shutil.copytree(suite_folder, folder)
    path = folder / "same_train.csv"
    head, *rows = path.read_text().splitlines()
    rare = [row for row in rows if row.endswith(",same")][:6]
    path.write_text("\n".join([head, *(r for r in rows if r.endswith(",other")), *rare]) + "\n")
    return folder


@pytest.mark.parametrize("method", ["pfeiffer", "adamix"])
def test_balanced_classes_answer_the_rare_one_more_often(
    method: str, mini: Path, suite_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MTL_TASKS", str(skewed(tmp_path / "skewed", suite_folder)))
    line = ["--suite", "mini", "--task", "same", "--method", method, "--epochs", "4", "--json"]
    plain = run("train", *line)
    assert run("train", *line, "--class-weights", "none")["digest"] == plain["digest"]
    even = run("train", *line, "--class-weights", "balanced")
    assert even["digest"] != plain["digest"]
    manifest = json.loads((mini / even["ref"] / "manifest.json").read_text())
    assert manifest["run_settings"]["class_weights"] == "balanced"
    assert "class_weights" not in (mini / plain["ref"] / "manifest.json").read_text()
    answered = {
        row["ref"]: load_file(mini / row["ref"] / "predictions.safetensors")["scores"]
        for row in (plain, even)
    }
    lean = {ref: float((value[:, 1] - value[:, 0]).mean()) for ref, value in answered.items()}
    assert lean[even["ref"]] > lean[plain["ref"]] + 0.2
    assert mtl("zoo", "verify", even["ref"]).code == 0


def test_what_has_no_classes_is_not_balanced(mini: Path) -> None:
    line = ["--suite", "mini", "--class-weights", "balanced", "--dry-run"]
    for command in (["train", "--task", "shared"], ["joint", "--method", "adapter-m"]):
        said = mtl(command[0], *command[1:], *line)
        refused(said, "mini/shared", "its labels are numbers, not classes")
    refused(mtl("train", *line[:2], "--class-weights", "balance"), "Did you mean 'balanced'")
    assert not entries(mini)
