"""What messages of the zoo and reports of it recommend: see ``recommended.py``."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_bench import ROOT, leftovers, mtl
from recommended import commands, follow, provoked, recommends
from zoo_bench import manifest, store

from mtl.backbone import Base
from mtl.errors import RequestError, RunError, ZooError
from mtl.zoo import Zoo, open_zoo

VERSIONS = ROOT / "tests" / "zoo" / "versions"


@pytest.fixture
def zoo(tmp_path: Path) -> Zoo:
    """The zoo of the test, that commands use by themselves; empty."""
    return open_zoo(tmp_path / "zoo")


def said(error: Any) -> str:
    return str(error.value)


@recommends("zoo/reader.py", "lists them; give a reference")
def test_an_unknown_entry(zoo: Zoo) -> None:
    entry = store(zoo, manifest())
    message = provoked(mtl("zoo", "rm", "no/such").err, "zoo/reader.py", "lists them; give a")
    assert entry.ref in follow(message).out


@recommends("zoo/reader.py", "is damaged")
@recommends("zoo/fsck.py", "Remove the entry (")
def test_a_damaged_file(zoo: Zoo) -> None:
    entry = store(zoo, manifest())
    (entry.folder / "adapter.safetensors").write_bytes(b"")
    with pytest.raises(ZooError) as error:
        zoo.load_check(entry)
    provoked(said(error), "zoo/reader.py", "is damaged")
    message = provoked(mtl("zoo", "fsck").out, "zoo/fsck.py", "Remove the entry (")
    assert commands(message)[0] == commands(said(error))[0]
    assert follow(said(error)).code == 0
    assert not zoo.entries()


@recommends("zoo/entry.py", "then run again what made it")
@recommends("cli/zoo_list.py", "says why")
def test_a_damaged_manifest(zoo: Zoo) -> None:
    entry = store(zoo, manifest())
    (entry.folder / "manifest.json").write_text("{")
    message = provoked(mtl("zoo", "ls").out, "cli/zoo_list.py", "says why")
    assert "manifest" in follow(message).out
    with pytest.raises(ZooError) as error:
        zoo.get(entry.ref)
    assert follow(provoked(said(error), "zoo/entry.py", "then run again")).code == 0
    assert not entry.folder.exists()


@recommends("zoo/fsck.py", "' removes it.")
def test_a_leftover(zoo: Zoo) -> None:
    store(zoo, manifest())
    dead = zoo.root / "tiny" / ".tmp-dead"
    dead.mkdir(parents=True)
    message = provoked(mtl("zoo", "fsck").out, "zoo/fsck.py", "' removes it.")
    assert follow(message).code == 0
    assert not dead.exists()


@recommends("cli/zoo.py", "of an older schema version")
def test_an_older_schema(zoo: Zoo) -> None:
    shutil.copytree(VERSIONS / "v1", zoo.root)
    message = provoked(mtl("zoo", "fsck").out, "cli/zoo.py", "of an older schema version")
    assert follow(message).code == 0
    assert follow(message, "--yes").code == 0
    assert "older schema" not in mtl("zoo", "fsck").out


@recommends("zoo/commit.py", "another result with the same settings is there")
@recommends("zoo/commit.py", "something that is no readable entry")
def test_a_place_that_is_taken(zoo: Zoo) -> None:
    entry = store(zoo, manifest())
    with pytest.raises(ZooError) as error:
        store(zoo, manifest(), 2.0)
    assert follow(provoked(said(error), "zoo/commit.py", "another result with the same")).code == 0
    entry.folder.mkdir(parents=True)
    (entry.folder / "manifest.json").write_text("{")
    with pytest.raises(ZooError) as error:
        store(zoo, manifest(), 2.0)
    assert follow(provoked(said(error), "zoo/commit.py", "no readable entry")).code == 0
    store(zoo, manifest(), 2.0)


@recommends("zoo/twins.py", "compares them")
def test_twins(zoo: Zoo, caplog: pytest.LogCaptureFixture) -> None:
    store(zoo, manifest())
    with caplog.at_level(logging.WARNING, "mtl.zoo"):
        store(zoo, manifest(runhash="fe" * 8, seed=1))
    assert follow(provoked(caplog.text, "zoo/twins.py", "compares them")).code in {0, 1}


@recommends("hub/lockfile.py", "There is no lock file")
@recommends("hub/lockfile.py", "is no lock of version")
def test_locks(zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(zoo, manifest())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MTL_ZOO", str(tmp_path / "another"))
    pull = ["zoo", "pull", "--lock", "mtl.lock", f"--zoo={zoo.root}"]
    message = provoked(mtl(*pull).err, "hub/lockfile.py", "There is no lock file")
    assert follow(message).code == 0
    (tmp_path / "mtl.lock").write_text('{"schema_version": 9, "entries": []}')
    message = provoked(mtl(*pull).err, "hub/lockfile.py", "is no lock of version")
    assert follow(message).code == 0
    assert mtl(*pull).code == 0


@recommends("cli/report.py", "holds no entry")
@recommends("cli/report.py", "is no composition")
def test_reports_of_nothing(zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTL_ZOO", str(tmp_path / "another"))
    message = provoked(mtl("report", "--zoo", zoo.root).err, "cli/report.py", "holds no entry")
    assert str(zoo.root) in follow(message).out
    demo = follow(message, "--suite", "demo", "--model", "demo", "--dry-run", which=1)
    assert demo.code == 0
    assert commands(message)[1] == ["mtl.train", "--zoo", str(zoo.root)]
    entry = store(zoo, manifest())
    line = ["--heatmap", tmp_path / "a.png", "--entry", entry.ref, "--zoo", zoo.root]
    message = provoked(mtl("report", *line).err, "cli/report.py", "is no composition")
    assert follow(message).code == 0


@recommends("zoo/commit.py", "could not confirm")
def test_a_disk_that_does_not_confirm(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    import mtl.zoo.commit as commit

    def fails(*_: Path) -> None:
        raise OSError(5, os.strerror(5))

    with monkeypatch.context() as patch:
        patch.setattr(commit, "sync_parents", fails)
        with pytest.raises(RunError) as error:
            store(zoo, manifest())
    message = provoked(said(error), "zoo/commit.py", "could not confirm")
    checked = follow(message)
    assert checked.code == 0, checked
    (entry,) = zoo.entries()
    # what the disk lost after all is found by the same command
    (entry.folder / "adapter.safetensors").write_bytes(b"")
    checked = follow(message)
    assert (checked.code, entry.ref in checked.out) == (1, True)


@recommends("zoo/staging.py", "could not be removed")
def test_a_disk_that_does_not_remove(
    zoo: Zoo, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import mtl.zoo.staging as staging

    def fails(folder: Path) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setenv("MTL_ZOO", str(zoo.root.parent / "another"))
    entry = store(zoo, manifest())
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "mtl.zoo"):
        patch.setattr(staging.shutil, "rmtree", fails)
        store(zoo, manifest())  # the same again: what was staged for it goes
    assert leftovers(zoo.root)
    message = provoked(caplog.text, "zoo/staging.py", "could not be removed")
    assert follow(message).code == 0
    assert not leftovers(zoo.root)
    assert [found.digest for found in zoo.entries()] == [entry.digest]


@recommends("zoo/packing.py", "Copy the entry instead")
def test_a_path_that_no_archive_holds(zoo: Zoo, tmp_path: Path) -> None:
    entry = store(zoo, manifest(suite="s" * 120, method="m" * 120))
    message = mtl("zoo", "pack", entry.ref, tmp_path / "x.mtlzoo").err
    provoked(message, "zoo/packing.py", "Copy the entry instead")
    assert follow(message, FOLDER=tmp_path / "copied").code == 0
    assert open_zoo(tmp_path / "copied").get(entry.ref).digest == entry.digest


@recommends("face/loading.py", "is a packed zoo")
def test_a_packed_zoo_is_unpacked_before_it_is_loaded(zoo: Zoo, tmp_path: Path) -> None:
    from mtl.face import load

    entry = store(zoo, manifest())
    file = tmp_path / "to colleagues.mtlzoo"
    assert mtl("zoo", "pack", entry.ref, file).code == 0
    shutil.rmtree(zoo.root)
    with pytest.raises(RequestError) as error:
        load(str(file))
    message = provoked(said(error), "face/loading.py", "is a packed zoo")
    assert entry.ref in follow(message).out
    assert zoo.get(entry.ref).digest == entry.digest


def test_commands_name_the_zoo_that_was_given(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told by ``--zoo``, where ``MTL_ZOO`` says another one, which is empty."""
    from mtl.compose.stored import find_parents
    from mtl.runs.loading import check_base

    entry = store(zoo, manifest())
    monkeypatch.setenv("MTL_ZOO", str(tmp_path / "another"))
    given = ["--zoo", str(zoo.root)]

    def raised(act: Callable[[], object], kind: type[Exception] = RequestError) -> str:
        with pytest.raises(kind) as error:
            act()
        return said(error)

    other = Base(**{**entry.manifest.base, "fingerprint": "ab" * 32, "weights": "cd" * 32})
    for message in (
        mtl("zoo", "rm", "no/such", *given).err,
        mtl("report", "--suite", "none", *given).err,
        mtl("report", "--heatmap", tmp_path / "a.png", "--entry", entry.ref, *given).err,
        raised(lambda: find_parents(entry, zoo)),
        raised(lambda: check_base(entry, other)),
        raised(lambda: store(zoo, manifest(), 2.0), ZooError),
    ):
        words = commands(message)[0]
        assert words[-2:] == given, message
    message = mtl("zoo", "rm", "no/such", *given).err
    assert entry.ref in follow(message).out
    (entry.folder / "adapter.safetensors").write_bytes(b"")
    message = raised(lambda: zoo.load_check(entry), ZooError)
    assert commands(mtl("zoo", "fsck", *given).out)[0] == commands(message)[0]
    (entry.folder / "manifest.json").write_text("{")
    message = mtl("zoo", "ls", *given).out
    assert "manifest" in follow(message).out
    assert follow(raised(lambda: zoo.get(entry.ref), ZooError)).code == 0
    assert not entry.folder.exists()
