"""Entries are whole or absent, immutable, found by what they are; nothing in a zoo is trusted."""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zoo_bench import MARK, composition, fill, manifest, store, task

from mtl.cli.main import dispatch
from mtl.errors import MtlError, RequestError, RunError, ZooError
from mtl.zoo import SCHEMA_VERSION, Manifest, Zoo, commit, open_zoo, read_predictions
from mtl.zoo import digest as digest_of


def kinds(zoo: Zoo) -> set[str]:
    return {problem.kind for problem in zoo.fsck()}


def test_what_was_stored_is_found_again(zoo: Zoo) -> None:
    assert not zoo.root.exists()
    entry = store(zoo, manifest(seed=12))
    assert entry.ref == "tiny-abababab/toy/own/pfeiffer/seed12-01234567"
    (found,) = zoo.entries(task="own", method="pfeiffer", seed=12, base=MARK)
    assert found == entry
    assert found.manifest == manifest(seed=12)
    assert zoo.get(entry.digest[:10]) == zoo.get("pfeiffer/seed12-01234567") == entry
    assert zoo.get("own/pfeiffer/seed12") == entry
    assert (entry.folder / "README.md").read_text().startswith("---\n")
    assert read_predictions(entry.folder).prediction.tolist() == [1, 0, 1, 0]
    assert not zoo.entries(seed=1)
    zoo.load_check(entry)
    assert zoo.fsck() == []


def test_digest_says_what_and_not_when() -> None:
    files = {"a.safetensors": "00" * 32, "README.md": "11" * 32}
    one = manifest()
    same = manifest(created="2027-01-01T00:00:00+00:00", versions={"mtl": "9"}, command="x")
    assert digest_of(one, files) == digest_of(same, {**files, "README.md": "22" * 32})
    assert digest_of(one, files) != digest_of(manifest(seed=1), files)
    assert digest_of(one, files) != digest_of(one, {**files, "a.safetensors": "33" * 32})
    slower = {**one.training, "seconds": 9.9}
    assert digest_of(manifest(training=slower), files) == digest_of(one, files)


def test_same_again_is_nothing_to_do_and_another_is_refused(zoo: Zoo) -> None:
    first = store(zoo, manifest())
    assert store(zoo, manifest(created="2027-01-01T00:00:00+00:00")) == first
    with pytest.raises(ZooError, match=first.digest[:8]):
        store(zoo, manifest(), value=2.0)
    zoo.load_check(first)
    assert zoo.fsck() == []


def test_a_block_that_raises_leaves_nothing(zoo: Zoo) -> None:
    ref = "a/b/c/d/seed0-01234567"
    with pytest.raises(RuntimeError, match="stop"), zoo.stage(ref) as folder:  # noqa: PT012
        fill(folder)
        raise RuntimeError("stop")
    assert zoo.entries() == []
    assert zoo.fsck() == []


def writer(zoo: Zoo, seed: int, value: float, stop: str = "never") -> subprocess.Popen[bytes]:
    script = Path(__file__).parents[1] / "zoo_bench.py"
    return subprocess.Popen(
        [sys.executable, str(script), str(zoo.root), str(seed), str(value), stop],
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )


def test_two_processes_write_at_once(zoo: Zoo) -> None:
    writers = [writer(zoo, 1, 1.0), writer(zoo, 1, 1.0), writer(zoo, 2, 1.0), writer(zoo, 3, 1.0)]
    errors = [process.communicate()[1] for process in writers]
    assert [process.returncode for process in writers] == [0, 0, 0, 0], errors
    assert [entry.manifest.seed for entry in zoo.entries()] == [1, 2, 3]
    assert zoo.fsck() == []


@pytest.mark.parametrize("stop", ["staged", "manifest"])
def test_killed_while_writing(zoo: Zoo, stop: str) -> None:
    kept = store(zoo, manifest(seed=7))
    process = writer(zoo, 1, 1.0, stop)
    assert process.wait() == -9, process.stderr.read() if process.stderr else ""
    assert zoo.entries() == [kept]
    zoo.load_check(kept)
    assert "leftover" in kinds(zoo)
    assert zoo.clean()
    assert zoo.fsck() == []
    assert store(zoo, manifest(seed=1, runhash=f"{1:016x}")).manifest.seed == 1


def test_a_live_writer_is_not_cleaned(zoo: Zoo) -> None:
    with zoo.stage("a/b/c/d/seed0-01234567") as folder:
        fill(folder)
        assert zoo.clean() == []
        assert folder.is_dir()


def test_full_disk(zoo: Zoo) -> None:
    """A file size limit stands in for a full disk: the write fails in the middle."""
    kept = store(zoo, manifest(seed=7))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    ref = "tiny-abababab/toy/own/pfeiffer/seed1-01234567"
    try:
        with pytest.raises(RunError, match="Nothing was stored"), zoo.stage(ref) as folder:  # noqa: PT012
            fill(folder)
            resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
            zoo.commit(folder, ref, manifest(seed=1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
    assert zoo.entries() == [kept]
    assert zoo.fsck() == []


def test_a_zoo_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "tiny-abababab").write_text("a file where a folder should be")
    with pytest.raises(MtlError, match="tiny-abababab"):
        store(open_zoo(tmp_path / "blocked"), manifest())
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(RequestError, match="not a folder"):
        open_zoo(tmp_path / "file")


def damage_truncate(folder: Path) -> None:
    path = folder / "adapter.safetensors"
    path.write_bytes(path.read_bytes()[:-5])


def damage_flip(folder: Path) -> None:
    path = folder / "adapter.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def damage_missing(folder: Path) -> None:
    (folder / "adapter_config.json").unlink()


@pytest.mark.parametrize("damage", [damage_truncate, damage_flip, damage_missing])
def test_damaged_files_are_named(zoo: Zoo, damage: Any) -> None:
    entry = store(zoo, manifest())
    damage(entry.folder)
    with pytest.raises(ZooError, match=r"adapter.*mtl.zoo rm .* python -m mtl.train"):
        zoo.load_check(entry)
    assert kinds(zoo) & {"changed", "missing", "tensors"}


def test_an_edited_manifest_is_noticed(zoo: Zoo) -> None:
    entry = store(zoo, manifest())
    path = entry.folder / "manifest.json"
    content = json.loads(path.read_text())
    content["metrics"]["test"]["accuracy"]["value"] = 0.99
    path.write_text(json.dumps(content))
    fresh = open_zoo(zoo.root)
    assert fresh.entries() == []
    assert fresh.problems
    with pytest.raises(ZooError, match="changed"):
        fresh.get(entry.ref)


def test_a_composition_keeps_its_sources(zoo: Zoo) -> None:
    sources = [store(zoo, manifest(task=task(name))) for name in ("one", "two")]
    made = composition(zoo, sources, np.ones((2, 2, 3), np.float32))
    with pytest.raises(RequestError, match=made.ref):
        zoo.remove(sources[0].ref)
    assert len(zoo.entries()) == 3
    zoo.remove_all([sources[0].ref], force=True)
    assert "parent" in kinds(zoo)
    zoo.remove_all([made.ref, sources[1].ref])
    assert zoo.entries() == []
    assert zoo.fsck() == []


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/mtl-was-here",)


def test_nothing_is_ever_unpickled(zoo: Zoo) -> None:
    marker = Path("/tmp/mtl-was-here")
    marker.unlink(missing_ok=True)
    entry = store(zoo, manifest())
    (entry.folder / "pytorch_adapter.bin").write_bytes(pickle.dumps(Evil()))
    (entry.folder / "adapter.safetensors").write_bytes(pickle.dumps(Evil()))
    assert "pickle" in kinds(zoo)
    with pytest.raises(ZooError):
        zoo.load_check(entry)
    assert not marker.exists()


@pytest.mark.parametrize("ref", ["../out", "/etc/x", "a/../../b", "a/b\x00c", ""])
def test_paths_that_leave_the_zoo_are_refused(zoo: Zoo, ref: str) -> None:
    with pytest.raises(MtlError), zoo.stage(ref):
        pass
    for key, value in (
        ("parents", [{"ref": ref, "digest": "a" * 64, "task": "t", "method": "m", "seed": 0}]),
    ):
        with pytest.raises(ZooError):
            manifest(**{key: value})


def test_links_out_of_the_zoo_are_not_followed(zoo: Zoo, tmp_path: Path) -> None:
    entry = store(zoo, manifest())
    secret = tmp_path / "secret"
    shutil.copytree(entry.folder, secret)
    shutil.rmtree(entry.folder)
    entry.folder.symlink_to(secret)
    fresh = open_zoo(zoo.root)
    assert fresh.entries() == []
    assert "link" in kinds(fresh)


@pytest.mark.parametrize(
    "content",
    ["[" * 100_000, '{"schema_version": 99}', "NaN", "[]", "{", '{"a": "' + "x" * (9 << 20)],
)
def test_odd_manifests_do_not_break_the_listing(zoo: Zoo, content: str) -> None:
    kept = store(zoo, manifest(seed=3))
    bad = zoo.root / "tiny-abababab" / "toy" / "own" / "pfeiffer" / "seed9-00000000"
    bad.mkdir()
    (bad / "manifest.json").write_text(content)
    assert zoo.entries() == [kept]
    assert any("seed9" in problem.path for problem in zoo.fsck())


def test_manifest_round_trip_and_its_errors() -> None:
    described = manifest()
    assert Manifest.from_dict(described.to_dict()) == described
    for key, value in (("seed", "0"), ("kind", "adaptor"), ("runhash", "xyz"), ("metrics", [])):
        with pytest.raises(ZooError, match=key):
            manifest(**{key: value})
    with pytest.raises(ZooError, match="Update mtl"):
        manifest(schema_version=SCHEMA_VERSION + 1)


def run(*arguments: str) -> int:
    return dispatch("zoo", list(arguments))


def test_command_lines(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    sources = [store(zoo, manifest(task=task(name))) for name in ("one", "two")]
    made = composition(zoo, sources, np.ones((2, 2, 3), np.float32))
    at = ["--zoo", str(zoo.root)]
    assert run("ls", *at) == 0
    out = capsys.readouterr().out
    assert made.ref in out
    assert "3 entries" in out
    assert run("ls", *at, "--kind", "adapter", "--sort", "metric", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert [row["task"] for row in listed["entries"]] == ["toy/one", "toy/two"]
    assert run("show", sources[0].ref, *at) == 0
    assert f"needed by {made.ref}" in capsys.readouterr().out
    assert run("fsck", *at) == 0
    assert run("rm", sources[0].ref, *at) == 2
    assert made.ref in capsys.readouterr().err
    assert run("show", "no/such", *at) == 2
    damage_flip(made.folder) if (made.folder / "adapter.safetensors").exists() else (
        made.folder / "composition.safetensors"
    ).write_bytes(b"0")
    assert run("fsck", *at, "--json") == 1
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert any("composition.safetensors" in problem["path"] for problem in problems)
    assert run("rm", made.ref, sources[0].ref, *at, "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["removed"]) == 2


def test_stored_although_another_process_removes(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same entry is there when the rename is tried, and gone when it is looked at."""
    first = store(zoo, manifest())
    real = commit._is_there
    turns = []

    def removed_just_now(target: Path, ref: str, digest: str) -> bool:
        turns.append(ref)
        shutil.rmtree(target)
        return real(target, ref, digest)

    monkeypatch.setattr(commit, "_is_there", removed_just_now)
    assert store(zoo, manifest()) == first
    assert turns == [first.ref]
    assert zoo.entries() == [first]


def test_stored_and_removed_at_once(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    real = commit.store

    def removed_just_now(*arguments: Any) -> bool:
        existing = real(*arguments)
        shutil.rmtree(arguments[1])
        return existing

    monkeypatch.setattr(commit, "store", removed_just_now)
    with pytest.raises(ZooError, match="at once removed by another process"):
        store(zoo, manifest())


def test_an_entry_that_vanishes_while_it_is_checked(
    zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [store(zoo, manifest(seed=n), float(n + 1)) for n in range(3)]
    from mtl.zoo import check

    real = check.check_files

    def vanishing(folder: Path, table: Any) -> Any:
        if folder == entries[1].folder:
            shutil.rmtree(folder, ignore_errors=True)
        return real(folder, table)

    monkeypatch.setattr(check, "check_files", vanishing)
    assert zoo.fsck() == []
    assert [entry.manifest.seed for entry in zoo.entries()] == [0, 2]
