"""Sources that a composition takes; those that are missing, ambiguous, damaged or do not fit."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_bench import TARGET, TASKS, digests, entries, leftovers, mtl, refused, source

from mtl.zoo import open_zoo


@pytest.mark.parametrize(
    ("options", "sources"),
    [
        ([], ["mood", "shared", "same"]),
        (["--without-own"], ["mood", "shared"]),
        (["--sources", "mood"], ["mood"]),
        (["--sources", "mini/same,mood"], ["mood", "same"]),
        (["--sources", "same", "shared", "mood"], ["shared", "mood", "same"]),
        (["--sources", "same,mood", "--without-own"], ["mood"]),
    ],
)
def test_which_sources(options: list[str], sources: list[str], stocked: Path) -> None:
    line = ["--target", TARGET, *options, "--max-steps", "1"]
    many = f"{len(sources)} source{'s' * (len(sources) > 1)}"
    unknown = f"no finished run of scalearn of {many} on {TARGET} with this base"
    assert unknown in " ".join(mtl("compose", *line, "--dry-run").out.split())
    said = mtl("compose", *line, "--json")
    assert said.code == 0, said
    assert [ref.split("/")[2] for ref in said.json["sources"]] == sources


def test_missing_sources_name_themselves_and_both_remedies(mini: Path, tiny: Any) -> None:
    refused(
        mtl("compose", "--target", TARGET),
        "3 of 3 sources are not in the zoo",
        "mini/mood (pfeiffer), mini/shared (pfeiffer), mini/same (pfeiffer)",
        "python -m mtl.train --suite mini --method pfeiffer --seeds 0 --model",
        "--task mini/mood mini/shared",
        "--allow-missing",
    )
    assert not entries(mini)


def test_the_remedy_that_the_message_offers_works(stocked: Path) -> None:
    shutil.rmtree(source(stocked, "mood"))
    shutil.rmtree(source(stocked, "same"))
    line = ["--target", TARGET, "--max-train-samples", "40", "--epochs", "1"]
    said = mtl("compose", *line)
    refused(said, "mini/mood (pfeiffer), mini/same (pfeiffer)", "--max-train-samples 40")
    remedies = [text.strip() for text in said.err.splitlines() if "mtl.train" in text]
    assert len(remedies) == 2
    for remedy in remedies:
        words = remedy.partition("#")[0].split()
        assert words[:3] == ["python", "-m", "mtl.train"]
        assert mtl("train", *words[3:], "--epochs", "1").code == 0
    assert mtl("compose", *line).code == 0


def test_allow_missing(stocked: Path, mini: Path) -> None:
    shutil.rmtree(source(stocked, "shared"))
    line = ["--target", TARGET, "--epochs", "1"]
    refused(mtl("compose", *line), "1 of 3 sources", "mini/shared", "--allow-missing")
    said = mtl("compose", *line, "--allow-missing", "--json")
    assert [ref.split("/")[2] for ref in said.json["sources"]] == ["mood", "same"]
    for task in ("same", "mood"):
        shutil.rmtree(source(stocked, task))
    refused(mtl("compose", *line, "--allow-missing", "--seeds", "5"), "None of the sources")


def test_ambiguous_sources(stocked: Path) -> None:
    again = ["--suite", "mini", "--task", "mood", "--epochs", "1"]
    assert mtl("train", *again).code == 0
    said = mtl("compose", "--target", TARGET)
    refused(said, "Source 'mini/mood' is ambiguous: 2 entries", "mtl.zoo rm", "epochs=1")
    assert "--pick best-dev" in said.err
    refs = [ref for ref in digests(stocked) if "/mood/" in ref]
    # What the error offers is what --sources takes, alone or beside 'all'.
    names = re.findall(r"^  (mini/mood:pfeiffer/seed0-[0-9a-f]{8})\b", said.err, re.M)
    assert sorted(name.rpartition("/")[2] for name in names) == sorted(
        ref.rpartition("/")[2] for ref in refs
    )
    line = ["--target", TARGET, "--max-steps", "1", "--json"]
    picked = mtl("compose", *line, "--pick", "best-dev")
    assert picked.code == 0, picked
    zoo = open_zoo()
    dev = {ref: zoo.get(ref).manifest.metrics["dev"]["accuracy"]["value"] for ref in refs}
    (taken,) = [ref for ref in picked.json["sources"] if "/mood/" in ref]
    assert dev[taken] == max(dev.values())
    for name in names:
        run = name.rpartition("/")[2]
        for short in (name, name[:-3], f"mood:pfeiffer/{run}"):
            found = mtl("compose", *line, "--sources", short, "same").json["sources"]
            assert [ref.rpartition("/")[2] == run for ref in found] == [True, False]
    whole = mtl("compose", *line, "--sources", "all", names[0])
    assert [ref.split("/")[2] for ref in whole.json["sources"]] == ["mood", "shared", "same"]
    assert whole.json["sources"][0].endswith(names[0].rpartition("/")[2])
    for wrong in ("mood:pfeiffer/seed0", "mood"):
        refused(mtl("compose", *line, "--sources", wrong), "ambiguous", names[0], names[1])
    said = mtl("compose", *line, "--sources", "mood:pfeiffer/seed0-ffff0000")
    refused(said, "no source mini/mood:pfeiffer/seed0-ffff0000", names[0], names[1])
    said = mtl("compose", *line, "--sources", refs[0])
    refused(said, "looks like a reference", f"here mini/mood:pfeiffer/{refs[0].split('/')[-1]}")


def test_a_named_source_must_fit(stocked: Path, tiny: Callable[[str], str]) -> None:
    name = "{}:pfeiffer/{}".format("mood", source(stocked, "mood").name)
    line = ["--target", TARGET, "--sources", name, "--max-steps", "1"]
    refused(mtl("compose", *line, "--model", tiny("bert")), "trained on 'tiny-roberta'")
    # the seed in the name goes before --source-seed, and a name is never trained for
    assert mtl("compose", *line, "--source-seed", "3", "--train-missing").code == 0
    gone = name[:-8] + "ffffffff"
    line = ["--target", TARGET, "--sources", gone, "--max-steps", "1"]
    refused(mtl("compose", *line, "--allow-missing"), "There is no source", name)
    refused(mtl("compose", *line, "--train-missing"), "There is no source", name)
    own = "same:pfeiffer/" + source(stocked, "same").name
    line = ["--target", TARGET, "--sources", own, "--max-train-samples", "9"]
    refused(mtl("compose", *line), "Cannot use the source mini/same:pfeiffer/seed0", "leak")
    for wrong in ("mood:", "mood:pfeiffer/", "mood:pfeiffer/3", "mood:pfeiffer/seed0-xyz", ":lora"):
        refused(mtl("compose", "--target", TARGET, "--sources", wrong), "--sources")
    said = mtl("compose", "--target", TARGET, "--sources", "all", "all")
    refused(said, "--sources names all twice")


def test_a_limit_that_cuts_nothing_makes_no_source_ambiguous(stocked: Path) -> None:
    again = ["--suite", "mini", "--task", "same", "--max-train-samples", "500"]
    assert mtl("train", *again).code == 0  # on the same 96 rows as the one that is there
    refs = sorted(ref for ref in digests(stocked) if "/same/" in ref)
    assert len(refs) == 2
    line = ["--target", TARGET, "--sources", "same", "--max-steps", "1", "--json"]
    plain = mtl("compose", *line).json["sources"]
    limited = mtl("compose", *line, "--max-train-samples", "500").json["sources"]
    assert sorted([*plain, *limited]) == refs


def test_of_sources_that_are_all_cut_the_one_of_the_most_rows_is_taken(stocked: Path) -> None:
    """A learning curve of another task leaves several, and none of all rows."""
    shutil.rmtree(source(stocked, "mood"))
    for rows in ("24", "48"):
        line = ["--suite", "mini", "--task", "mood", "--max-train-samples", rows]
        assert mtl("train", *line, "--max-steps", "1").code == 0
    line = ["--target", TARGET, "--max-steps", "1"]
    said = mtl("compose", *line, "--json")
    assert said.code == 0, said
    taken = open_zoo(stocked).get(said.json["sources"][0]).manifest
    assert (taken.task["id"], taken.data["sizes"]["train"]) == ("mini/mood", 48)
    again = ["--suite", "mini", "--task", "mood", "--max-train-samples", "48", "--epochs", "1"]
    assert mtl("train", *again).code == 0  # of as many rows, at other settings
    refused(mtl("compose", *line), "'mini/mood' is ambiguous: 2 entries")


def test_sources_of_another_seed_and_method(stocked: Path) -> None:
    refused(mtl("compose", "--target", TARGET, "--source-seed", "3"), "seed 3", "--seeds 3")
    refused(
        mtl("compose", "--target", TARGET, "--source-method", "pfeifer"),
        "Unknown method 'pfeifer'",
        "'pfeiffer'",
    )


def test_sources_of_another_base(stocked: Path, tiny: Callable[[str], str]) -> None:
    said = mtl("compose", "--target", TARGET, "--model", tiny("bert"))
    refused(said, "trained on 'tiny-roberta'", "this run uses 'tiny-bert'", "--model")
    assert len(entries(stocked)) == len(TASKS)


def test_sources_of_another_placement(stocked: Path) -> None:
    shutil.rmtree(source(stocked, "mood"))
    line = ["--suite", "mini", "--task", "mood", "--epochs", "1", "--set", "placement=houlsby"]
    assert mtl("train", *line).code == 0
    said = mtl("compose", "--target", TARGET)
    refused(said, "placements differ", "/mood/pfeiffer/", "/shared/pfeiffer/", "--set placement=")
    assert len(entries(stocked)) == len(TASKS)


@pytest.mark.parametrize("file", ["adapter.safetensors", "adapter_config.json"])
@pytest.mark.parametrize("damage", ["changed", "cut", "gone"])
def test_a_damaged_source(file: str, damage: str, stocked: Path) -> None:
    path = source(stocked, "mood") / file
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        changed = content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
        path.write_bytes(changed if damage == "changed" else content[:-9])
    said = mtl("compose", "--target", TARGET, "--epochs", "1")
    refused(said, "/mood/pfeiffer/", "is damaged", file, "mtl.zoo rm", code=1)
    assert len(entries(stocked)) == len(TASKS)
    assert not leftovers(stocked)


def test_a_tampered_manifest(stocked: Path) -> None:
    path = source(stocked, "mood") / "manifest.json"
    text = path.read_text()
    assert '"seed": 0' in text
    path.write_text(text.replace('"seed": 0', '"seed": 7'))
    for argv in ([], ["--source-seed", "7"]):
        said = mtl("compose", "--target", TARGET, "--epochs", "1", *argv)
        refused(said, "mini/mood")
    path.write_text(text[: len(text) // 2])
    refused(mtl("compose", "--target", TARGET, "--epochs", "1"), "mini/mood")


def test_sources_of_each_runs_own_seed(stocked: Path, tmp_path: Path) -> None:
    """As the paper's probes; recipe `reference` says so, ``--source-seed`` says otherwise."""
    line = ["--suite", "mini", "--task", "mood", "--seeds", "1", "--epochs", "1"]
    assert mtl("train", *line).code == 0
    path = tmp_path / "own.yaml"
    path.write_text(
        "defaults: {epochs: 1, batch_size: 16}\nmethods: {probe: {}}\nsource_seed: {probe: run}\n"
    )
    line = ["--target", "same", "--suite", "mini", "--sources", "mood", "--without-own"]
    line += ["--probe", "1", "--seeds", "0", "1", "--recipe", path, "--json"]
    said = mtl("compose", *line)
    assert said.code == 0, said
    parents = [
        json.loads((stocked / row["ref"] / "manifest.json").read_text())["parents"]
        for row in said.json["runs"]
    ]
    assert [[parent["seed"] for parent in own] for own in parents] == [[0], [1]]
    assert len(said.json["sources"]) == 2
    one = mtl("compose", *line, "--source-seed", "0", "--dry-run").json["runs"]
    assert [row["state"] for row in one] == ["done", "missing"]
    refused(mtl("compose", *line, "--source-seed", "own"), "--source-seed takes a number", "'run'")
    auto = ["--target", "same", "--suite", "mini", "--sources", "auto", "--seeds", "0", "1"]
    refused(mtl("compose", *auto, "--source-seed", "run"), "cannot be picked", "--sources")
