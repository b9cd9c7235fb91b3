"""Repositories that lie: one message, nothing outside the zoo, no half entry, no code."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub_bench import composed, hub, proven
from loopback_state import Hub
from zoo_bench import manifest, task

from mtl.cli.main import dispatch
from mtl.files import sha256_bytes
from mtl.hub import parse_repo, push
from mtl.hub.index import INDEX
from mtl.zoo import Zoo, digest, open_zoo

__all__ = ["hub"]  # the fixture
Files = dict[str, bytes]


def changed(value: dict[str, Any], repository: Files, **changes: Any) -> bytes:
    """A manifest with ``changes`` whose digest is right for them, as a liar would write it."""
    value = {**value, **changes}
    described = {key: item for key, item in value.items() if key not in {"digest", "files"}}
    hashes = {name: str(item.get("sha256")) for name, item in value["files"].items()}
    try:
        from mtl.zoo import Manifest

        value["digest"] = digest(Manifest.from_dict(described), hashes)
    except Exception:
        value["digest"] = "0" * 64
    index = json.loads(repository[INDEX])
    for row in index["entries"].values():
        row["digest"] = value["digest"]
    repository[INDEX] = json.dumps(index).encode()
    return json.dumps(value).encode()


def table(**rows: Any) -> Callable[[Files], None]:
    """Change the file table of the manifest; a row None leaves a file out."""

    def change(files: Files) -> None:
        value = json.loads(files["manifest.json"])
        merged = {**value["files"], **{k.replace("__", "/"): v for k, v in rows.items()}}
        merged = {name: row for name, row in merged.items() if row is not None}
        files["manifest.json"] = changed(value, files, files=merged)

    return change


def index(edit: Callable[[dict[str, Any]], Any]) -> Callable[[Files], None]:
    def change(files: Files) -> None:
        value = json.loads(files[INDEX])
        files[INDEX] = json.dumps(edit(value) or value).encode()

    return change


def moved(ref: str) -> Callable[[Files], None]:
    return index(lambda value: value["entries"]["."].update(ref=ref))


def put(**content: bytes) -> Callable[[Files], None]:
    names = {"manifest": "manifest.json", "index": INDEX, "weights": "adapter.safetensors"}
    return lambda files: files.update({names[key]: value for key, value in content.items()})


def weights(data: bytes) -> Callable[[Files], None]:
    """Other weights, with a table and a digest that fit them."""

    def change(files: Files) -> None:
        files["adapter.safetensors"] = data
        row = {"sha256": sha256_bytes(data), "bytes": len(data)}
        table(**{"adapter.safetensors": row})(files)

    return change


def mark(path: Path) -> Any:
    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (path,)

    return Trap()


ROW = {"sha256": "0" * 64, "bytes": 4}
HUGE = (2**62).to_bytes(8, "little") + b"{}"
ATTACKS: dict[str, Callable[[Files], None]] = {
    "index: outside": moved("../../outside"),
    "index: absolute": moved("/tmp/outside"),
    "index: device": moved("a/NUL"),
    "index: hidden": moved("a/.tmp-x"),
    "index: no object": put(index=b"[]"),
    "index: no JSON": put(index=b"\xff\xfe"),
    "index: deep": put(index=b"[" * 100_000),
    "index: version": index(lambda value: {**value, "schema_version": 99}),
    "index: path outside": index(
        lambda value: {**value, "entries": {"../x": value["entries"]["."]}}
    ),
    "index: digest": index(lambda value: value["entries"]["."].update(digest="0" * 64)),
    "index: digest of another type": index(lambda value: value["entries"]["."].update(digest=7)),
    "index: summary": index(lambda value: value["entries"]["."].update(summary=None)),
    "manifest: no JSON": put(manifest=b"{"),
    "manifest: deep": put(manifest=b'{"a":' * 50_000),
    "manifest: changed": lambda files: files.update(
        {"manifest.json": files["manifest.json"].replace(b'"seed": 0', b'"seed": 1')}
    ),
    "table: outside": table(**{"..__..__outside.json": ROW}),
    "table: absolute": table(**{"__tmp__outside.json": ROW}),
    "table: pickle": table(**{"weights.bin": ROW}),
    "table: case": table(**{"Adapter.safetensors": ROW}),
    "table: missing file": table(**{"more.safetensors": ROW}),
    "table: file left out": table(**{"adapter_config.json": {**ROW, "bytes": 15}}),
    "table: absurd size": table(**{"adapter.safetensors": {"sha256": "0" * 64, "bytes": 2**80}}),
    "table: negative size": table(**{"adapter.safetensors": {"sha256": "0" * 64, "bytes": -1}}),
    "weights: pickle": weights(pickle.dumps(mark(Path("trapped")))),
    "weights: absurd header": weights(HUGE),
    "weights: cut": weights(b"\x08\0\0\0\0\0\0\0{}"),
    "weights: others": put(weights=b"x" * 300),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_lying_repository(
    name: str,
    hub: Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    mine = open_zoo(tmp_path / "mine")
    proven(mine)
    push(mine, [], parse_repo("ada/zoo"))
    files = dict(hub.files("ada/zoo"))
    ATTACKS[name](files)
    hub.put("ada/zoo", files)
    zoo = open_zoo(tmp_path / "zoo")
    kept = proven(zoo, task=task("kept"))
    outside = set(tmp_path.iterdir())
    code = dispatch("zoo", ["pull", "ada/zoo", "--zoo", str(zoo.root)])
    said = capsys.readouterr()
    assert code in {1, 2}, (name, said)
    assert said.err.startswith("error: ")
    assert said.err.count("\n") < 5
    assert zoo.entries() == [kept]
    assert zoo.fsck() == []
    assert set(tmp_path.iterdir()) <= outside | {tmp_path / "hf"}
    assert not Path("trapped").exists()


def test_an_entry_inside_an_entry(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = open_zoo(tmp_path / "mine")
    entry = proven(mine)
    push(mine, [], parse_repo("ada/zoo"))
    zoo = open_zoo(tmp_path / "zoo")
    kept = proven(zoo, task=task("kept"))
    files = dict(hub.files("ada/zoo"))
    moved(f"{kept.ref}/inner")(files)
    hub.put("ada/zoo", files)
    assert dispatch("zoo", ["pull", "ada/zoo", "--zoo", str(zoo.root)]) == 1
    assert f"{kept.ref} is an entry" in capsys.readouterr().err
    assert zoo.fsck() == []
    assert entry.digest != kept.digest


def test_sources_in_a_circle(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Digests make a true circle impossible; a made-up one ends all the same."""
    mine = open_zoo(tmp_path / "mine")
    entry, sources = composed(mine)
    push(mine, [], parse_repo("ada/zoo"))
    files = dict(hub.files("ada/zoo"))
    path = f"{sources[0].ref}/manifest.json"
    value = json.loads(files[path])
    parent = {"ref": entry.ref, "digest": entry.digest, "task": "x", "method": "y", "seed": 0}
    files[path] = json.dumps({**value, "parents": [parent]}).encode()
    hub.put("ada/zoo", files)
    zoo = open_zoo(tmp_path / "zoo")
    assert dispatch("zoo", ["pull", "ada/zoo", "--zoo", str(zoo.root)]) == 1
    assert "changed after it was written" in capsys.readouterr().err
    assert zoo.fsck() == []


def test_a_source_that_is_nowhere(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = open_zoo(tmp_path / "mine")
    _, sources = composed(mine)
    push(mine, [], parse_repo("ada/zoo"))
    files = dict(hub.files("ada/zoo"))
    value = json.loads(files[INDEX])
    del value["entries"][sources[0].ref]
    hub.put("ada/zoo", {**files, INDEX: json.dumps(value).encode()})
    zoo = open_zoo(tmp_path / "zoo")
    assert dispatch("zoo", ["pull", "ada/zoo", "--zoo", str(zoo.root)]) == 2
    said = capsys.readouterr().err
    assert sources[0].ref in said
    assert "--without-sources" in said
    assert zoo.entries() == []


def test_a_repository_without_an_index(hub: Hub, tmp_path: Path) -> None:
    """Somebody put entries there by hand: found by their manifests."""
    mine = open_zoo(tmp_path / "mine")
    entry, sources = composed(mine)
    push(mine, [], parse_repo("ada/zoo"))
    alone = proven(open_zoo(tmp_path / "alone"), task=task("alone"))
    push(open_zoo(tmp_path / "alone"), [], parse_repo("ada/one"))
    zoo = open_zoo(tmp_path / "zoo")
    for repo in ("ada/zoo", "ada/one"):
        files = {name: data for name, data in hub.files(repo).items() if name != INDEX}
        hub.repos[repo].commit("main", files)
        assert dispatch("zoo", ["pull", repo, "--zoo", str(zoo.root)]) == 0
    assert {e.digest for e in zoo.entries()} == {
        alone.digest,
        entry.digest,
        *(source.digest for source in sources),
    }
    assert zoo.fsck() == []


def test_names_that_no_disk_can_hold_are_passed_over(hub: Hub, tmp_path: Path) -> None:
    mine = open_zoo(tmp_path / "mine")
    entry = proven(mine)
    push(mine, [], parse_repo("ada/zoo"))
    strange = {"../up": b"x", "a/../../b": b"x", "CON": b"x", "x\ny": b"x", "ü/ß": b"x"}
    hub.put("ada/zoo", {**strange, "evil.pkl": pickle.dumps(mark(tmp_path / "trapped"))})
    zoo = open_zoo(tmp_path / "zoo")
    assert dispatch("zoo", ["pull", "ada/zoo", "--zoo", str(zoo.root)]) == 0
    assert zoo.get(entry.ref).digest == entry.digest
    assert zoo.fsck() == []
    assert not (tmp_path / "trapped").exists()


def test_what_strangers_write_into_cards_stays_text(hub: Hub, tmp_path: Path) -> None:
    """Their words in a table of ours, and in YAML, mean themselves."""
    mine = open_zoo(tmp_path / "mine")
    word = "x | y\n---\nlicense: evil <script>`"
    proven(mine, suite="toy", command=word)
    proven(mine, task={**manifest().task, "id": word, "name": "other"})
    push(mine, [], parse_repo("ada/zoo"), license="mit")
    card = hub.files("ada/zoo")["README.md"].decode()
    header = card.split("---\n")[1]
    assert "evil" not in header
    assert "license: mit" in header
    assert "<script>" not in card


def test_lock_of_a_stranger(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    zoo: Zoo = open_zoo(tmp_path / "zoo")
    path = tmp_path / "mtl.lock"
    for content in (b"\xff", b"[" * 100_000, b"{}", b'{"schema_version": 1, "entries": [1]}'):
        path.write_bytes(content)
        assert dispatch("zoo", ["pull", "--lock", str(path), "--zoo", str(zoo.root)]) == 1
        assert "mtl.lock" in capsys.readouterr().err
    assert hub.log == []
