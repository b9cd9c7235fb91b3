"""Push, pull and lock against a Hub on loopback, through the real client."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hub_bench import REPO, composed, hub, proven, same
from loopback_state import Hub
from zoo_bench import digests, manifest, store, task

from mtl.cli.main import dispatch
from mtl.errors import RequestError, RunError, ZooError
from mtl.hub import parse_repo, pull, push, read_lock, restore
from mtl.zoo import Zoo, open_zoo

__all__ = ["hub"]  # the fixture


def test_one_entry_lies_at_the_root(hub: Hub, zoo: Zoo, other: Zoo) -> None:
    entry = proven(zoo)
    done = push(zoo, [entry.ref], REPO, license="mit")
    assert done.entries[0] == {
        "ref": entry.ref,
        "digest": entry.digest,
        "path": ".",
        "status": "pushed",
        "reader": "adapters",
    }
    files = hub.files("ada/zoo")
    assert {"adapter_config.json", "adapter.safetensors", "pytorch_adapter.bin"} <= set(files)
    assert b"license: mit" in files["README.md"]
    assert b'load_adapter("ada/zoo"' in files["README.md"]
    assert not hub.repos["ada/zoo"].private
    assert len(hub.repos["ada/zoo"].commits) == 2  # the first one made the repository
    same(hub, zoo)
    pulled = pull(other, REPO)
    assert pulled.entries == [{"ref": entry.ref, "digest": entry.digest, "status": "pulled"}]
    same(hub, other)
    assert not list(other.root.rglob("*.bin"))
    assert "license: mit" in (other.get(entry.ref).folder / "README.md").read_text()
    assert other.get(entry.ref).manifest == entry.manifest
    again = other.record_verified(other.get(entry.ref), {"again": True})
    assert "license: mit" in (again.folder / "README.md").read_text()


def test_the_same_digest_is_not_sent_again(hub: Hub, zoo: Zoo) -> None:
    proven(zoo)
    push(zoo, [], REPO)
    before = len(hub.log)
    again = push(zoo, [], REPO)
    assert (again.files, again.bytes, again.entries[0]["status"]) == (0, 0, "there")
    assert {method for method, _, _ in hub.log[before:]} <= {"GET", "HEAD"}
    # Trained again elsewhere: another time, the same result.
    other = open_zoo(zoo.root.parent / "third")
    proven(other, created="2027-01-01T00:00:00+00:00")
    assert push(other, [], REPO).files == 0
    same(hub, zoo)


def test_a_composition_brings_its_sources_in_one_commit(hub: Hub, zoo: Zoo, other: Zoo) -> None:
    entry, sources = composed(zoo)
    proven(zoo, task=task("apart"))
    done = push(zoo, ["own/scalearn/seed0"], REPO, private=True)
    assert [item["ref"] for item in done.entries] == [*(s.ref for s in sources), entry.ref]
    assert done.entries[2]["reader"] == "mtl"
    assert hub.repos["ada/zoo"].private
    assert len(hub.repos["ada/zoo"].commits) == 2
    readme = hub.files("ada/zoo")["README.md"].decode()
    assert all(item["ref"] in readme for item in done.entries)
    assert "Zoo: 3 entries" in readme
    pulled = pull(other, REPO, ["own/scalearn/seed0"])
    assert [item["status"] for item in pulled.entries] == ["pulled"] * 3
    same(hub, other)
    shutil.rmtree(other.root)
    alone = pull(other, REPO, ["own/scalearn/seed0"], sources=False)
    assert [item["ref"] for item in alone.entries] == [entry.ref]
    assert pull(other, REPO).entries[-1]["status"] == "there"
    same(hub, other)


def test_a_whole_zoo_grows(hub: Hub, zoo: Zoo, other: Zoo) -> None:
    hub.part_size = 100  # uploads in parts
    proven(zoo)
    push(zoo, [], REPO)
    composed(zoo)
    done = push(zoo, [], REPO)
    assert sorted(item["status"] for item in done.entries) == ["pushed"] * 3 + ["there"]
    assert len(hub.repos["ada/zoo"].commits) == 3
    same(hub, zoo)
    pull(other, REPO)
    same(hub, other)
    assert push(other, [], REPO).files == 0


def test_a_branch_and_a_commit(hub: Hub, zoo: Zoo, other: Zoo) -> None:
    entry = proven(zoo)
    first = push(zoo, [], REPO)
    proven(zoo, task=task("more"))
    branch = parse_repo("ada/zoo@next")
    push(zoo, [], branch)
    assert hub.files("ada/zoo") != hub.files("ada/zoo", "next")
    assert len(digests(zoo)) == 2
    pull(other, parse_repo(f"ada/zoo@{first.revision}"))
    assert digests(other) == {entry.ref: entry.digest}
    pull(other, branch)
    assert digests(other) == digests(zoo)
    with pytest.raises(RequestError, match="no branch, tag or commit 'nowhere'"):
        pull(other, parse_repo("ada/zoo@nowhere"))


def test_another_result_in_the_place(hub: Hub, zoo: Zoo, other: Zoo) -> None:
    ours = proven(zoo)
    push(zoo, [], REPO)
    theirs = proven(other, 2.0)
    with pytest.raises(RequestError, match=rf"{ours.digest[:12]}.*--replace"):
        push(other, [], REPO)
    pull(other, REPO)  # both results of the run are kept
    assert digests(other) == {
        theirs.ref: theirs.digest,
        f"{ours.ref}+{ours.digest[:8]}": ours.digest,
    }
    same(hub, zoo)


def test_files_of_others_are_not_written_over(hub: Hub, zoo: Zoo, other: Zoo) -> None:
    proven(zoo)
    hub.put("ada/zoo", {"README.md": b"my words", "adapter_config.json": b"{}", "notes": b"x"})
    before = hub.files("ada/zoo")
    with pytest.raises(RequestError, match=r"would be lost: README.md, adapter_config.json"):
        push(zoo, [], REPO)
    assert hub.files("ada/zoo") == before
    push(zoo, [], REPO, replace=True)
    assert hub.files("ada/zoo")["notes"] == b"x"
    same(hub, zoo)
    composed(zoo)
    push(zoo, [], REPO)  # index and cards are ours from now on
    same(hub, zoo)


def test_what_is_not_verified_is_not_pushed(hub: Hub, zoo: Zoo) -> None:
    entry = store(zoo, manifest())
    with pytest.raises(RequestError, match=rf"zoo verify {entry.ref}"):
        push(zoo, [], REPO)
    assert hub.log == []


def test_a_damaged_entry_is_not_pushed(hub: Hub, zoo: Zoo) -> None:
    entry = proven(zoo)
    (entry.folder / "adapter.safetensors").write_bytes(b"x" * 200)
    with pytest.raises(ZooError, match="damaged"):
        push(zoo, [], REPO)
    assert hub.log == []


def test_dry_runs_change_nothing(hub: Hub, zoo: Zoo, other: Zoo) -> None:
    proven(zoo)
    done = push(zoo, [], REPO, dry_run=True)
    assert done.files == 7
    assert hub.repos == {}
    assert push(zoo, [], REPO).files == done.files
    assert pull(other, REPO, dry_run=True).bytes > 100
    assert not other.root.exists()


def test_who_may_what(hub: Hub, zoo: Zoo, other: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    proven(zoo)
    push(zoo, [], REPO, private=True)
    proven(zoo, task=task("more"))

    def told(token: str | None, action: Any, *parts: str) -> None:
        if token:
            monkeypatch.setenv("HF_TOKEN", token)
        else:
            monkeypatch.delenv("HF_TOKEN")
        with pytest.raises(RequestError) as found:
            action()
        for part in parts:
            assert part in str(found.value)
        monkeypatch.setenv("HF_TOKEN", "hf_ada")

    told(None, lambda: push(zoo, [], REPO), "there is no token", "hf auth login", "HF_TOKEN")
    told("hf_wrong", lambda: push(zoo, [], REPO), "does not accept the token")
    told("hf_read", lambda: push(zoo, [], REPO), "no right to write to ada/zoo")
    told("hf_bob", lambda: push(zoo, [], REPO), "no right", "'ada'")
    told(None, lambda: pull(other, REPO), "no repository ada/zoo", "private", "no token")
    told("hf_bob", lambda: pull(other, REPO), "your token has no access")
    told("hf_ada", lambda: pull(other, parse_repo("ada/nothing")), "no repository ada/nothing")
    hub.put("ada/public", {"README.md": b"---\ntags: [x]\n---\n"})
    told(
        "hf_ada",
        lambda: push(zoo, [], parse_repo("ada/public"), private=True),
        "is public, and --private was asked for",
    )
    assert not other.root.exists()


@pytest.mark.parametrize("text", ["zoo", "a/b/c", "../x", "a/b@", "a/b@../c", "a/b@x y", ""])
def test_names_that_are_none(text: str) -> None:
    with pytest.raises(RequestError, match=r"names no repository|is no revision"):
        parse_repo(text)


def test_offline(hub: Hub, zoo: Zoo, other: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    proven(zoo)
    push(zoo, [], REPO)
    pull(other, REPO)
    shutil.rmtree(other.root)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    before = len(hub.log)
    with pytest.raises(RequestError, match=r"Cannot push .*HF_HUB_OFFLINE is set"):
        push(zoo, [], REPO)
    pull(other, REPO)  # from the cache
    same(hub, other)
    with pytest.raises(RequestError, match="cache does not hold it"):
        pull(other, parse_repo("ada/elsewhere"))
    assert len(hub.log) == before


def test_a_pull_needs_no_torch() -> None:
    code = (
        "import sys, mtl.cli.hub\n"
        "from mtl.hub import parse_repo, pull, read_lock, restore\n"
        "import mtl.hub.cards\n"
        "assert not {'torch', 'adapters', 'transformers'} & {*sys.modules}, 'heavy'"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 0


def test_the_command_lines(
    hub: Hub, zoo: Zoo, other: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def mtl(*argv: object, code: int = 0) -> str:
        assert dispatch("zoo", [str(item) for item in argv]) == code
        said = capsys.readouterr()
        return said.err if code else said.out

    entry, _ = composed(zoo)
    here, there, lock = ("--zoo", zoo.root), ("--zoo", other.root), tmp_path / "mtl.lock"
    assert "name the entries, or pass --all" in mtl("push", "--repo", "ada/zoo", *here, code=2)
    sent = json.loads(mtl("push", "--all", "--repo", "ada/zoo", "--json", *here))
    assert len(sent["entries"]) == 3
    assert "Nothing to send" in mtl("push", "--all", "--repo", "ada/zoo", *here)
    said = json.loads(mtl("lock", "--repo", "ada/zoo", "--file", lock, "--json", *here))
    assert {row["revision"] for row in said["entries"]} == {sent["revision"]}
    got = json.loads(mtl("pull", "--lock", lock, "--json", *there))
    assert [row["status"] for row in got["repositories"][0]["entries"]] == ["pulled"] * 3
    same(hub, other)
    assert "holds all of it" in mtl("pull", "ada/zoo", entry.ref, *there)
    assert "user/name" in mtl("pull", *there, code=2)
    assert "part1" not in mtl("push", "--repo", "ada/zoo", "part0/pfeiffer/seed0", *here)
    assert "part1" not in mtl("pull", *there, "--dry-run", "ada/zoo", "part0/pfeiffer/seed0")
    assert "unrecognized arguments: --repos" in mtl("pull", "ada/zoo", "--repos", "x", code=2)
    assert "unrecognized arguments: more" in mtl("ls", "more", code=2)


def test_a_lock_restores_exactly_that(hub: Hub, zoo: Zoo, other: Zoo, tmp_path: Path) -> None:
    from mtl.hub.lockfile import lock, write_lock

    entry, sources = composed(zoo)
    first = push(zoo, [], REPO)
    path = tmp_path / "mtl.lock"
    locked = lock(zoo, [entry.ref], [REPO])
    assert {item.ref for item in locked} == {entry.ref, *(source.ref for source in sources)}
    assert {item.revision for item in locked} == {first.revision}
    write_lock(path, locked)
    assert sorted(read_lock(path), key=lambda i: i.ref) == sorted(locked, key=lambda i: i.ref)
    # The repository goes on; the lock does not.
    changed = open_zoo(tmp_path / "changed")
    proven(changed, 7.0, task=task("part0"))
    push(changed, [], REPO, replace=True)
    restore(other, read_lock(path))
    assert digests(other) == {item.ref: item.digest for item in locked}
    assert restore(other, read_lock(path)) == []
    # Another result in a place is named, and nothing else is touched.
    with pytest.raises(RunError, match=r"(?s)differ.*part0.*locked is"):
        restore(changed, read_lock(path))
    assert len(digests(changed)) == 1
    with pytest.raises(RequestError, match="in none of ada/zoo"):
        lock(zoo, [], [REPO])
    # Without a repository a lock can check.
    write_lock(path, lock(zoo, [], []))
    assert restore(zoo, read_lock(path)) == []
    with pytest.raises(RunError, match="names no repository"):
        restore(open_zoo(tmp_path / "empty"), read_lock(path))


@pytest.mark.parametrize(
    "change",
    [
        {"ref": "../out"},
        {"ref": "/etc"},
        {"digest": "x"},
        {"digest": None},
        {"repository": "a"},
        {"repository": "ada/zoo@main"},
        {"revision": "main"},
        {"revision": None},
        {"more": 1},
    ],
)
def test_locks_that_are_none(change: dict[str, Any], tmp_path: Path) -> None:
    row = {"ref": "a/b", "digest": "0" * 64, "repository": "ada/zoo", "revision": "0" * 40}
    path = tmp_path / "mtl.lock"
    path.write_text(json.dumps({"schema_version": 1, "entries": [{**row, **change}]}))
    with pytest.raises(ZooError, match=r"mtl.lock"):
        read_lock(path)
