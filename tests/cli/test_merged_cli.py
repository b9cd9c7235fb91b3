"""A zoo into which somebody's results of the same runs came: commands mean what they meant."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from cli_bench import mtl
from safetensors.numpy import load_file, save_file

from mtl.zoo import Entry, open_zoo
from mtl.zoo.check import file_table
from mtl.zoo.manifest import record

SHORT = ["--epochs", "1", "--max-steps", "4"]


def on_another_machine(entry: Entry, root: Path) -> Entry:
    """The entry as if its run had ended in other last digits, in a zoo of its own."""
    folder = root / entry.ref
    shutil.copytree(entry.folder, folder)
    file = folder / "adapter.safetensors"
    save_file({k: np.nextafter(v, np.float32(9)) for k, v in load_file(file).items()}, file)
    text = json.dumps(record(entry.manifest, file_table(folder, entry.ref)))
    (folder / "manifest.json").write_text(text, encoding="utf-8")
    return open_zoo(root).get(entry.ref)


def test_sources_and_runs_are_those_from_before(stocked: Path, tmp_path: Path) -> None:
    zoo = open_zoo(stocked)
    ours = {entry.manifest.task["id"]: entry for entry in zoo.entries()}
    theirs = on_another_machine(ours["mini/mood"], tmp_path / "theirs")
    assert theirs.digest != ours["mini/mood"].digest
    said = mtl("zoo", "copy", theirs.ref, stocked, "--zoo", tmp_path / "theirs")
    assert said.code == 0, said
    assert f"{theirs.ref}+{theirs.digest[:8]}" in said.out
    assert len(zoo.entries()) == len(ours) + 1
    # nothing to train, and the sources are ours
    again = mtl("train", "--suite", "mini", "--task", "mood", "--json")
    assert again.code == 0, again
    line = ["compose", "--target", "same", "--suite", "mini", *SHORT]
    said = mtl(*line, "--sources", "all")
    assert said.code == 0, said
    (entry,) = zoo.entries(kind="composition")
    used = {parent["task"]: parent["digest"] for parent in entry.manifest.parents}
    assert used == {task: found.digest for task, found in ours.items()}
    # theirs by its digest
    named = f"mood:pfeiffer/seed0-{theirs.digest[:8]}"
    said = mtl(*line, "--sources", "all", named)
    assert said.code == 0, said
    digests = {p["digest"] for e in zoo.entries(kind="composition") for p in e.manifest.parents}
    assert theirs.digest in digests
    assert len(zoo.entries()) == len(ours) + 3  # nothing was trained again
    fsck = mtl("zoo", "fsck")
    assert fsck.code == 0, fsck
    # two compositions whose sources are results of the same runs have names that differ
    rows = mtl("report", "--target", "mini/same", "--json").json["rows"]
    apart = [row["settings"] for row in rows if row["kind"] == "composition"]
    assert len(apart) == 2
    assert apart[0] != apart[1]
