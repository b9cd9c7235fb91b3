"""Entries as an attacker would write them. Each is refused at the door, and breaks nothing inside.

An attack (of a file ``attack_*.py`` beside) changes a good entry in a folder; ``reseal`` then makes
the manifest agree with the files again, as somebody who knows the format would. What must hold for
every one of them:
``check_foreign`` names the kind of problem, ``fsck`` of a zoo that holds it neither raises nor is
silent, and nothing appears outside the folder.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from pathlib import Path

import numpy as np
import pytest
from attack_bench import ATTACKS
from zoo_bench import composition, manifest, store, task

from mtl.errors import MtlError, ZooError
from mtl.limits import Limits
from mtl.zoo import check_foreign, check_listing, open_zoo
from mtl.zoo.intake import admit

for path in sorted(Path(__file__).parent.glob("attack_*.py")):
    importlib.import_module(path.stem)  # registers its attacks


def snapshot(root: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(root)): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in root.rglob("*")
        if not path.is_relative_to(root / "zoo")
    }


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    """A good entry, alone in a zoo."""
    return store(open_zoo(tmp_path / "zoo"), manifest()).folder


def test_there_are_enough() -> None:
    assert len(ATTACKS) >= 30


def test_a_good_entry_passes(staged: Path, tmp_path: Path) -> None:
    assert check_foreign(staged) == []
    sources = [store(open_zoo(tmp_path / "b"), manifest(task=task(name))) for name in ("a", "b")]
    made = composition(open_zoo(tmp_path / "b"), sources, np.ones((2, 2, 8), np.float32))
    assert check_foreign(made.folder) == []


@pytest.mark.parametrize("name", ATTACKS)
def test_refused_at_the_door(name: str, staged: Path, tmp_path: Path) -> None:
    kind, perform = ATTACKS[name]
    try:
        perform(staged)
    except OSError as error:
        pytest.skip(f"this file system does not allow it: {error}")
    before = snapshot(tmp_path)
    found = check_foreign(staged)
    assert kind in {problem.kind for problem in found}, found
    for problem in found:
        assert str(problem).encode(), "has to be printable"
        assert len(str(problem)) < 3000
    with pytest.raises(ZooError, match="was not taken into the zoo"):
        admit(staged, "the entry")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", ATTACKS)
def test_breaks_nothing_inside(name: str, staged: Path, tmp_path: Path) -> None:
    """A copy of somebody's zoo: whoever looks at it sees what is wrong, and the rest of it."""
    _, perform = ATTACKS[name]
    kept = store(open_zoo(tmp_path / "zoo"), manifest(seed=5, runhash="5" * 16))
    try:
        perform(staged)
    except OSError as error:
        pytest.skip(f"this file system does not allow it: {error}")
    zoo = open_zoo(tmp_path / "zoo")
    assert kept.ref in [entry.ref for entry in zoo.entries()]
    assert zoo.fsck() != []
    with contextlib.suppress(MtlError):
        zoo.load_check(zoo.get(staged.relative_to(zoo.root).as_posix()))
    zoo.load_check(kept)


def test_hard_links_are_refused_at_the_door_only(staged: Path, tmp_path: Path) -> None:
    """A backup made of hard links is a good zoo; something fetched has none."""
    os.link(staged / "adapter.safetensors", tmp_path / "other")
    assert {problem.kind for problem in check_foreign(staged)} == {"link"}
    assert open_zoo(tmp_path / "zoo").fsck() == []


def test_a_folder_that_is_a_link(staged: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(staged)
    assert {problem.kind for problem in check_foreign(tmp_path / "link")} == {"link"}


def test_sizes_and_counts_are_limited(staged: Path) -> None:
    for limits, kind in (
        (Limits(file_bytes=50), "size"),
        (Limits(entry_bytes=100), "size"),
        (Limits(files=2), "size"),
        (Limits(json_bytes=100), "manifest"),
        (Limits(json_depth=2), "manifest"),
        (Limits(json_values=20), "manifest"),
        (Limits(header_bytes=20), "tensors"),
        (Limits(rank=1), "tensors"),
    ):
        found = check_foreign(staged, limits)
        assert kind in {problem.kind for problem in found}, (limits, found)


def test_sparse_file_of_a_terabyte(staged: Path) -> None:
    """Declared size without a byte on the disk: refused by its size, not read."""
    try:
        os.truncate(staged / "adapter.safetensors", 1 << 40)
    except OSError as error:
        pytest.skip(str(error))
    assert {problem.kind for problem in check_foreign(staged)} == {"size"}


def test_what_is_declared_is_checked_before_it_is_fetched() -> None:
    assert check_listing({"a/manifest.json": 10, "a/adapter.safetensors": 10}) == []
    for sizes in (
        {"../a.json": 1},
        {"/etc/passwd": 1},
        {"a//b.json": 1},
        {"a.json": -1},
        {"a.json": 1 << 60},
        {"a.json": 1, "A.json": 1},
        {"a.json": 1, "a.json/b.json": 1},
        {"con": 1},
        {f"{index}.json": 1 for index in range(3000)},
        {f"{index}.json": 10 << 30 for index in range(10)},
    ):
        assert check_listing(sizes), sizes


def test_a_repository_of_adapters_without_manifest(staged: Path) -> None:
    (staged / "manifest.json").unlink()
    assert check_foreign(staged) == []
    (staged / "pytorch_adapter.bin").write_bytes(b"x")
    assert {problem.kind for problem in check_foreign(staged)} == {"pickle"}
    assert check_foreign(staged, unread={"pytorch_adapter.bin"}) == []
    (staged / "setup.py").write_text("x")
    assert {p.kind for p in check_foreign(staged, unread={"pytorch_adapter.bin"})} == {"stray"}


def test_the_limits_of_the_environment(staged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTL_LIMITS", "file_bytes=10KiB, files=100")
    assert check_foreign(staged) == []
    monkeypatch.setenv("MTL_LIMITS", "file_bytes=90")
    assert "size" in {problem.kind for problem in check_foreign(staged)}
    for text, says in (
        ("file_byte=1", "Did you mean"),
        ("files=many", "files=2000"),
        ("files=0", "1"),
    ):
        monkeypatch.setenv("MTL_LIMITS", text)
        with pytest.raises(MtlError, match=says):
            check_foreign(staged)
