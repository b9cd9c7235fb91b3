"""Values per source go by name or as typed; `all` says what it took; K = 1 is a warning."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from cli_bench import TARGET, Said, entries, mtl, refused
from test_verify_cli import reseal

from mtl.zoo.composition import FILE

SHORT = ["--max-steps", "2", "--json"]


def composed(
    stocked: Path, method: str, setting: str, *sources: str
) -> tuple[dict[str, Any], Said]:
    line = ["--target", "same", "--method", method, "--set", setting, *SHORT]
    said = mtl("compose", *line, "--sources", *sources)
    assert said.code == 0, said
    folder = stocked / said.json["runs"][0]["ref"]
    return json.loads((folder / "manifest.json").read_text()), said


@pytest.mark.parametrize(("method", "field"), [("soup", "weights"), ("probe", "scales")])
def test_numbers_follow_the_order_typed_and_names_any(
    method: str, field: str, stocked: Path
) -> None:
    """The target's own source is moved last; its number goes along."""
    stored = "mini/mood:0,mini/same:1"
    first, said = composed(stocked, method, f"{field}=1,0", "same", "mood")
    assert first["method_settings"][field] == stored
    assert [parent["task"] for parent in first["parents"]] == ["mini/mood", TARGET]
    assert said.json["by_source"] == f"{field} by source: mini/mood 0, mini/same 1"
    # the same request in other words is the same run
    for text, *sources in (
        ("0,1", "mood", "same"),
        ("same:1,mood:0", "mood", "same"),
        ("mini/mood:0,same:1.0", "same", "mood"),
        ("same:pfeiffer:1,mood:0", "same", "mood"),
    ):
        again, said = composed(stocked, method, f"{field}={text}", *sources)
        assert said.json["runs"][0]["status"] == "skipped", (text, sources)
        assert again["runhash"] == first["runhash"]
    other, _ = composed(stocked, method, f"{field}=1,0", "mood", "same")
    assert other["method_settings"][field] == "mini/mood:1,mini/same:0"
    assert other["runhash"] != first["runhash"]


def test_the_number_reaches_the_source_that_it_names(stocked: Path) -> None:
    from safetensors.numpy import load_file

    made, said = composed(stocked, "probe", "scales=same:0.25,mood:0.5", "same", "mood")
    tensors = load_file(stocked / said.json["runs"][0]["ref"] / FILE)
    (omega,) = [value for name, value in tensors.items() if "omega" in name]
    assert omega.reshape(-1).tolist() == [0.5, 0.25]  # in the order of the parents
    assert [parent["task"] for parent in made["parents"]] == ["mini/mood", TARGET]
    text = mtl("compose", "--target", "same", "--sources", "same", "mood", "--method", "probe",
               "--set", "scales=0.25,0.5", "--max-steps", "2").out  # fmt: skip
    assert "Scales by source: mini/mood 0.5, mini/same 0.25" in text


@pytest.mark.parametrize(
    ("setting", "sources", "parts"),
    [
        ("weights=1,0,0", ["all"], ["not named one by one", "--set weights=mini/mood:1,mini/sh"]),
        ("weights=1,0,0", ["same", "mood"], ["are 3 for 2 sources (mini/mood, mini/same)"]),
        ("weights=same:1,moot:0", ["same", "mood"], ["'moot'", "Did you mean 'mini/mood'?"]),
        ("weights=same:1,same:0", ["same", "mood"], ["names mini/same twice"]),
        ("weights=same:1", ["same", "mood"], ["says nothing of mini/mood"]),
        ("weights=same:1,0", ["same", "mood"], ["of every value, or of none"]),
        ("weights=same:x,mood:0", ["same", "mood"], ["must be numbers"]),
    ],
)
def test_values_that_fit_no_source_are_refused(
    setting: str, sources: list[str], parts: list[str], stocked: Path
) -> None:
    line = ["--target", "same", "--method", "soup", "--set", setting, "--sources", *sources]
    refused(mtl("compose", *line), *parts)


def test_an_entry_with_numbers_alone_still_loads(stocked: Path) -> None:
    """Entries of before: numbers in the order of the parents."""
    made, said = composed(stocked, "probe", "scales=same:0.25,mood:0.5", "same", "mood")
    ref = said.json["runs"][0]["ref"]
    reseal(stocked / ref, method_settings={**made["method_settings"], "scales": "0.5,0.25"})
    again = mtl("zoo", "verify", ref, "--tolerance", "0", "--json")
    assert again.code == 0, again
    assert again.json["verified"][0]["max_logit_difference"] == 0


def test_all_says_what_it_took_and_what_it_left(
    stocked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A target of a suite of its own has `all` mean itself, with a full zoo beside it."""
    folder = Path(os.environ["MTL_TASKS"])
    text = (folder / "same.yaml").read_text().replace("mini/same", "own/same")
    for path in folder.glob("same_*.csv"):
        shutil.copy(path, stocked.parent)
    (stocked.parent / "own.yaml").write_text(text)
    own = stocked.parent / "own.yaml"
    model = ["--model", os.environ["MTL_MODEL"]]
    recipe = ["--recipe", "mini", "--max-steps", "2"]
    assert mtl("train", "--task", own, *model, *recipe).code == 0
    monkeypatch.delenv("MTL_QUIET")
    line = ["compose", "--target", own, *model, *recipe, "--method", "average"]
    said = mtl(*line)
    assert said.code == 0, said
    assert "--sources all: the tasks of suite own (1); 1 source: own/same (its own)." in said.err
    assert "of tasks outside suite own: mini/mood, mini/same, mini/shared." in said.err
    assert "warning: this composition has one source, the target's own adapter (K = 1)" in said.err
    advice = said.err.split("Name tasks to take them, too: ")[1].splitlines()[0].split()
    # what is advised runs, and takes them
    said = mtl(*line, *advice)
    assert said.code == 0, said
    assert "4 sources: mini/mood, mini/same, mini/shared, own/same (its own)" in said.err
    assert "K = 1" not in said.err
    assert len(entries(stocked)) == 6
    monkeypatch.setenv("MTL_QUIET", "1")
    said = mtl(*line, "--json")
    assert "K = 1" in said.err
    assert list(said.json["passed_over"]) == ["of tasks outside suite own"]


def test_the_other_own_adapter_is_named_so_that_it_can_be_taken(stocked: Path) -> None:
    # a limit that cuts nothing: another run, on the same rows
    line = ["--suite", "mini", "--task", "same", "--max-train-samples", "96", "--json"]
    (other,) = mtl("train", *line).json["runs"]
    said = mtl("compose", "--target", "same", "--sources", "all", *SHORT)
    assert said.code == 0, said
    (names,) = said.json["passed_over"].values()
    (name,) = names
    assert name == f"{TARGET}:pfeiffer/seed0-{other['ref'].rpartition('-')[2]}"
    again = mtl("compose", "--target", "same", "--sources", "all", name, *SHORT)
    assert again.code == 0, again
    assert other["ref"] in again.json["sources"]
    assert other["ref"] not in said.json["sources"]
