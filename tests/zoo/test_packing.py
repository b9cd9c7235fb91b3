"""Entries without a Hub: copied into another folder, packed into one file and unpacked."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hub_bench import composed, proven
from zoo_bench import digests, task, untouched

from mtl.cli.main import dispatch
from mtl.errors import RequestError, RunError, ZooError
from mtl.zoo import Zoo, open_zoo
from mtl.zoo.packing import pack, read_archive, unpack
from mtl.zoo.sharing import copy

VERSIONS = Path(__file__).parent / "versions"


def test_a_composition_takes_its_sources_along(zoo: Zoo, other: Zoo, tmp_path: Path) -> None:
    whole, sources = composed(zoo)
    proven(zoo, task=task("more"))
    done = copy(zoo, [whole.ref], other)
    assert [row["ref"] for row in done.entries] == [*(s.ref for s in sources), whole.ref]
    assert {row["status"] for row in done.entries} == {"copied"}
    assert other.fsck() == []
    assert digests(other) == {e.ref: e.digest for e in (whole, *sources)}
    again = copy(zoo, [whole.ref], other)
    assert {row["status"] for row in again.entries} == {"there"}
    assert again.bytes == 0
    file = tmp_path / "one.mtlzoo"
    packed = pack(zoo, [whole.ref], file)
    assert packed.bytes == done.bytes
    third = open_zoo(tmp_path / "third")
    assert unpack(third, file).bytes == done.bytes
    assert third.fsck() == []
    assert digests(third) == digests(other)


def test_a_pack_is_a_plain_archive_of_a_zoo(zoo: Zoo, tmp_path: Path) -> None:
    """The same entries give the same bytes, and ``tar xf`` a folder that is a zoo."""
    whole, _ = composed(zoo)
    files = [tmp_path / "a.mtlzoo", tmp_path / "b.mtlzoo"]
    for file in files:
        pack(zoo, [], file)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert pack(zoo, [], files[0]).bytes == 0
    with tarfile.open(files[0]) as archive:
        assert {member.mtime for member in archive} == {0}
        archive.extractall(tmp_path / "plain", filter="data")
    plain = open_zoo(tmp_path / "plain")
    assert digests(plain) == digests(zoo)
    assert plain.fsck() == []
    assert whole.ref in digests(plain)


def test_another_file_does_not_give_way(zoo: Zoo, tmp_path: Path) -> None:
    proven(zoo)
    file = tmp_path / "x.mtlzoo"
    file.write_text("mine")
    with pytest.raises(RequestError, match=r"another file is there.*--replace"):
        pack(zoo, [], file)
    assert file.read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.mtlzoo", "zoo"]
    pack(zoo, [], file, replace=True)
    with file.open("rb") as stream:
        assert len(read_archive(stream, file.name)) == 1


def test_dry_runs_change_nothing(zoo: Zoo, other: Zoo, tmp_path: Path) -> None:
    composed(zoo)
    file = tmp_path / "x.mtlzoo"
    seen: list[tuple[int, int]] = []
    size = copy(zoo, [], other, dry_run=True).bytes
    assert pack(zoo, [], file, dry_run=True).bytes == size
    assert not file.exists()
    pack(zoo, [], file, progress=lambda *now: seen.append(now))
    assert seen[-1] == (size, size)
    assert unpack(other, file, dry_run=True).bytes == size
    assert not other.root.exists()


def test_the_licence_of_a_card_comes_along(zoo: Zoo, other: Zoo, tmp_path: Path) -> None:
    from mtl.zoo.card import card, license_of

    entry = proven(zoo)
    (entry.folder / "README.md").write_text(card(entry.manifest, "mit"), encoding="utf-8")
    pack(zoo, [], tmp_path / "x.mtlzoo")
    unpack(other, tmp_path / "x.mtlzoo")
    copy(zoo, [], open_zoo(tmp_path / "third"))
    for root in (other.root, tmp_path / "third"):
        assert license_of(root / entry.ref / "README.md") == "mit"


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
def test_entries_of_before(version: str, zoo: Zoo, tmp_path: Path) -> None:
    shutil.copytree(VERSIONS / version, zoo.root)
    pack(zoo, [], tmp_path / "x.mtlzoo")
    for number, share in enumerate((unpack, lambda to, _: copy(zoo, [], to))):
        to = open_zoo(tmp_path / str(number))
        share(to, tmp_path / "x.mtlzoo")
        assert digests(to) == digests(zoo)
        assert to.fsck() == []


def test_what_is_refused_before_anything_is_written(zoo: Zoo, other: Zoo, tmp_path: Path) -> None:
    whole, sources = composed(zoo)
    for place in (zoo, open_zoo(zoo.root / "inner"), open_zoo(zoo.root.parent)):
        with pytest.raises(RequestError, match="neither this zoo nor in it"):
            copy(zoo, [], place)
    theirs = proven(other, 7.0, task=task("part0"), run_settings={"lr": 0.5})
    pack(zoo, [whole.ref], tmp_path / "x.mtlzoo")
    for share in (lambda: copy(zoo, [], other), lambda: unpack(other, tmp_path / "x.mtlzoo")):
        with pytest.raises(RunError, match=rf"another run there.*{theirs.digest[:12]}.*zoo rm"):
            share()
    assert digests(other) == {theirs.ref: theirs.digest}
    assert other.fsck() == []
    shutil.rmtree(sources[1].folder)
    with pytest.raises(RequestError, match="which is not in the zoo"):
        pack(zoo, [whole.ref], tmp_path / "y.mtlzoo")
    (sources[0].folder / "adapter.safetensors").write_bytes(b"x" * 200)
    with pytest.raises(ZooError, match="is damaged"):
        copy(zoo, [sources[0].ref], open_zoo(tmp_path / "third"))
    assert not (tmp_path / "y.mtlzoo").exists()
    assert not (tmp_path / "third").exists()


def test_a_path_that_no_archive_holds(zoo: Zoo, tmp_path: Path) -> None:
    proven(zoo, suite="s" * 120, method="m" * 120)
    with pytest.raises(RunError, match="more than a tar archive holds"):
        pack(zoo, [], tmp_path / "x.mtlzoo")
    assert not (tmp_path / "x.mtlzoo").exists()


def test_a_full_disk(zoo: Zoo, other: Zoo, tmp_path: Path, monkeypatch: Any) -> None:
    import mtl.zoo.packing as packing

    proven(zoo)
    pack(zoo, [], tmp_path / "x.mtlzoo")

    def full(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(packing, "_fill", full)
    with pytest.raises(RunError, match="No space left"):
        unpack(other, tmp_path / "x.mtlzoo")
    assert untouched(other)
    monkeypatch.setattr(tarfile.TarFile, "addfile", full)
    with pytest.raises(RunError, match="No space left"):
        pack(zoo, [], tmp_path / "y.mtlzoo")
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "other") == ["x.mtlzoo", "zoo"]


def test_the_commands(zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, sources = composed(zoo)
    file, folder = str(tmp_path / "x.mtlzoo"), str(tmp_path / "copied")

    def done(*words: str) -> Any:
        assert dispatch("zoo", [*words, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    packed = done("pack", whole.ref, "--zoo", str(zoo.root), file)  # a name behind an option
    assert [row["ref"] for row in packed["entries"]] == [*(s.ref for s in sources), whole.ref]
    assert done("copy", "--all", folder, "--zoo", str(zoo.root))["bytes"] == packed["bytes"]
    dry = done("unpack", file, "--zoo", str(tmp_path / "new"), "--dry-run")
    assert dry["dry_run"] is True
    assert not (tmp_path / "new").exists()
    assert dispatch("zoo", ["unpack", file, "--zoo", str(tmp_path / "new")]) == 0
    assert "3 entries" in capsys.readouterr().out
    assert dispatch("zoo", ["unpack", file, "--zoo", str(tmp_path / "new")]) == 0
    assert "Nothing to do" in capsys.readouterr().out
    for words, part in (
        (["copy", whole.ref], "name the entries and then FOLDER"),
        (["copy", sources[0].ref, whole.ref], "the last name is FOLDER"),
        (["pack", whole.ref, str(tmp_path / "x.zip")], "the last name is the file"),
        (["pack", "--all", whole.ref, file], "name the entries and then FILE.mtlzoo"),
        (["pack", "no/such", file], "no/such"),
        (["unpack", str(tmp_path / "none.mtlzoo")], "There is no file"),
        (["unpack", str(tmp_path)], "There is no file"),
    ):
        assert dispatch("zoo", [*words, "--zoo", str(zoo.root)]) == 2, words
        assert part in capsys.readouterr().err
