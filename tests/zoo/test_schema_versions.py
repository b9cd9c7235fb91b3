"""Entries of every schema version are read, checked and migrated."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from care_bench import said
from zoo_bench import manifest

from mtl.errors import ZooError
from mtl.zoo import SCHEMA_VERSION, Manifest, open_zoo
from mtl.zoo.migration import STEPS, lift

VERSIONS = Path(__file__).parent / "versions"


def test_an_entry_of_every_version_is_kept() -> None:
    assert sorted(path.name for path in VERSIONS.iterdir()) == [
        f"v{number}" for number in range(1, SCHEMA_VERSION + 1)
    ]
    assert sorted(STEPS) == list(range(1, SCHEMA_VERSION))


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION + 1))
def test_every_version_is_read_and_migrated(
    version: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "old"
    shutil.copytree(VERSIONS / f"v{version}", root)
    stored = {
        path.parent.relative_to(root).as_posix(): json.loads(path.read_text())
        for path in root.rglob("manifest.json")
    }
    assert {value["schema_version"] for value in stored.values()} == {version}
    old = open_zoo(root)
    entries = {entry.ref: entry for entry in old.entries()}
    assert {ref: entry.digest for ref, entry in entries.items()} == {
        ref: value["digest"] for ref, value in stored.items()
    }
    assert {entry.schema_version for entry in entries.values()} == {version}
    assert {entry.manifest.kind for entry in entries.values()} == {"adapter", "composition"}
    assert old.fsck() == []
    outdated = [] if version == SCHEMA_VERSION else sorted(stored)

    at = ["--zoo", str(root)]
    content = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    dry = said(capsys, "migrate", *at)
    assert sorted(row["ref"] for row in dry["old"]) == outdated
    assert dry["migrated"] == []
    assert {path: path.read_bytes() for path in content} == content
    assert said(capsys, "fsck", *at)["old_schema"] == len(outdated)
    assert sorted(said(capsys, "migrate", *at, "--yes")["migrated"]) == outdated

    new = open_zoo(root)
    assert {entry.schema_version for entry in new.entries()} == {SCHEMA_VERSION}
    for entry in new.entries():
        assert entry.digest == stored[entry.ref]["digest"]
        assert entry.manifest == entries[entry.ref].manifest
        new.load_check(entry)
    assert new.fsck() == []
    assert said(capsys, "migrate", *at)["old"] == []
    for path, data in content.items():
        if path.name not in {"manifest.json", "README.md"}:
            assert path.read_bytes() == data


def test_a_migration_of_a_damaged_entry_changes_nothing(tmp_path: Path) -> None:
    root = tmp_path / "old"
    shutil.copytree(VERSIONS / "v1", root)
    zoo = open_zoo(root)
    entry = zoo.entries()[0]
    path = entry.folder / "predictions.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    before = (entry.folder / "manifest.json").read_bytes()
    with pytest.raises(ZooError, match=r"predictions\.safetensors"):
        zoo.migrate(entry)
    assert (entry.folder / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("version", [0, -1, SCHEMA_VERSION + 1, True, "2", None, 10**30])
def test_versions_that_are_none(version: Any) -> None:
    with pytest.raises(ZooError, match="schema"):
        lift({"schema_version": version}, "x")
    with pytest.raises(ZooError):
        Manifest.from_dict({**manifest().to_dict(), "schema_version": version})


def test_verified_is_kept_when_an_old_entry_is_rewritten(tmp_path: Path) -> None:
    root = tmp_path / "old"
    shutil.copytree(VERSIONS / "v1", root)
    zoo = open_zoo(root)
    entry = zoo.record_verified(zoo.entries()[0], {"split": "test"})
    assert entry.schema_version == SCHEMA_VERSION
    assert entry.manifest.verified == {"split": "test"}
    assert "tensors" in entry.files["adapter.safetensors"]
    assert zoo.fsck() == []
