"""Removing beside storing and reading, step by step; and what a failing clean-up leaves."""

from __future__ import annotations

import errno
import logging
import shutil
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from zoo_bench import composition, manifest, store, task

from mtl.errors import MtlError, RequestError, RunError, ZooError
from mtl.zoo import Entry, Zoo, commit, open_zoo, removal, staging

OMEGA = np.ones((1, 2, 3), np.float32)


@pytest.fixture
def sources(zoo: Zoo) -> list[Entry]:
    return [store(zoo, manifest(task=task(name))) for name in ("a", "b")]


class Beside(threading.Thread):
    """Something that another process does at once; its error or answer afterwards."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self.work = work
        self.error: MtlError | None = None
        self.start()

    def run(self) -> None:
        try:
            self.work()
        except MtlError as error:
            self.error = error

    def waits(self) -> bool:
        """Whether it cannot go on: it is given the time in which it would be done twice over."""
        self.join(0.5)
        return self.is_alive()


def at(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, hook: Callable[[], None]) -> None:
    """Call ``hook`` once, before the function ``module.name``."""
    real, todo = getattr(module, name), [hook]

    def hooked(*arguments: Any, **named: Any) -> Any:
        if todo:
            todo.pop()()
        return real(*arguments, **named)

    monkeypatch.setattr(module, name, hooked)


def test_a_source_is_not_removed_while_a_composition_of_it_is_stored(
    zoo: Zoo, sources: list[Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    others: list[Beside] = []

    def remove() -> None:
        others.append(Beside(lambda: open_zoo(zoo.root).remove(sources[0].ref)))
        assert others[0].waits()

    at(monkeypatch, commit, "store", remove)  # the sources were looked for, nothing is stored yet
    made = composition(zoo, sources, OMEGA, runhash="22" * 8)
    others[0].join(30)
    assert isinstance(others[0].error, RequestError)
    assert f"{sources[0].ref} is needed by {made.ref}" in str(others[0].error)
    assert {entry.ref for entry in zoo.entries()} == {made.ref, *(s.ref for s in sources)}
    assert zoo.fsck() == []


def test_a_composition_is_not_stored_while_its_source_is_removed(
    zoo: Zoo, sources: list[Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    others: list[Beside] = []

    def compose() -> None:
        other = open_zoo(zoo.root)
        others.append(Beside(lambda: composition(other, sources, OMEGA, runhash="22" * 8)))
        assert others[0].waits()

    at(monkeypatch, removal, "_remove", compose)  # nobody needs it: it goes next
    zoo.remove(sources[0].ref)
    others[0].join(30)
    assert isinstance(others[0].error, ZooError)
    assert f"its source {sources[0].ref}" in str(others[0].error)
    assert "Train that source again" in str(others[0].error)
    assert [entry.ref for entry in zoo.entries()] == [sources[1].ref]
    assert zoo.fsck() == []
    assert list(zoo.root.rglob(".tmp-*")) == []


def test_a_source_that_was_stored_again_as_another_one_is_gone(
    zoo: Zoo, sources: list[Entry]
) -> None:
    zoo.remove(sources[0].ref)
    store(zoo, manifest(task=task("a")), 2.0)  # the same place, another digest
    with pytest.raises(ZooError, match=r"its source .*/a/.* is not in the zoo any more"):
        composition(zoo, sources, OMEGA, runhash="22" * 8)
    assert zoo.entries(kind="composition") == []


def test_a_composition_may_be_pulled_without_its_sources(zoo: Zoo, sources: list[Entry]) -> None:
    made = composition(zoo, sources, OMEGA, runhash="22" * 8)
    other = open_zoo(zoo.root.with_name("other"))
    with other.stage(made.ref) as folder:
        shutil.copytree(made.folder, folder, dirs_exist_ok=True)
        assert other.commit(folder, made.ref, made.manifest, orphan=True).digest == made.digest


def test_whoever_holds_the_lock_too_long_is_named(
    zoo: Zoo, sources: list[Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "PATIENCE", 0.1)
    with (
        staging.guarded(zoo.root, "hold it"),
        pytest.raises(RunError, match=r"Cannot remove from the zoo: another process has held .*"),
    ):
        open_zoo(zoo.root).remove(sources[0].ref)
    zoo.remove(sources[0].ref)


@pytest.mark.parametrize("again", [False, True])
def test_what_failed_because_the_entry_was_removed_says_so(
    zoo: Zoo, sources: list[Entry], again: bool
) -> None:
    entry = sources[0]

    def read() -> None:
        open_zoo(zoo.root).remove(entry.ref)
        if again:
            store(open_zoo(zoo.root), manifest(task=task("a")), 2.0)
        raise FileNotFoundError(entry.folder / "adapter.safetensors")

    said = "was removed by another process while it was read"
    with pytest.raises(ZooError, match=said), zoo.reading(entry):
        read()
    with pytest.raises(ZooError, match="was removed by another process"):
        zoo.load_check(entry)
    # what fails for another reason keeps it
    with pytest.raises(KeyError, match="other"), zoo.reading(sources[1]):
        raise KeyError("other")


def test_a_damaged_entry_was_not_removed(zoo: Zoo, sources: list[Entry]) -> None:
    (sources[0].folder / "adapter.safetensors").unlink()
    with pytest.raises(ZooError, match=r"is damaged: adapter\.safetensors is missing"):
        zoo.load_check(sources[0])
    (sources[0].folder / "manifest.json").write_text("{", encoding="utf-8")
    with pytest.raises(KeyError), zoo.reading(sources[0]):
        raise KeyError("own")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EBUSY])
def test_the_next_run_takes_along_what_could_not_be_removed(
    zoo: Zoo, code: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ref, beside = "b/s/t/m/seed0-aaaaaaaa", "b/s/t/m/seed0-aaaaaaaab"

    def refuses(*_: Any, **__: Any) -> None:
        raise OSError(code, "no")

    with monkeypatch.context() as patch:
        patch.setattr(staging.shutil, "rmtree", refuses)
        with caplog.at_level(logging.WARNING, "mtl.zoo"), zoo.stage(ref) as left:
            (left / "adapter.safetensors").write_bytes(b"half")
        assert "could not be removed (no); the next run for the same entry" in caplog.text
        assert left.is_dir()
        with zoo.stage(beside) as other:
            pass
        with zoo.stage(ref) as second:  # it still refuses: no reason not to run
            pass
    assert {left, other, second} <= set(left.parent.iterdir())
    with zoo.stage(ref) as live, zoo.stage(ref) as last:
        assert {path for path in left.parent.iterdir() if path.is_dir()} == {
            live,  # of another process that is at it
            last,
            other,  # of another entry: not ours to take
        }
    assert [path for path in left.parent.iterdir() if path != other] == []


def test_a_run_ends_although_nothing_can_be_removed(
    zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``rm`` has moved the entry away: it is removed, whatever becomes of the temporary."""

    def refuses(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "no")

    entry = store(zoo, manifest())
    with monkeypatch.context() as patch:
        patch.setattr(staging.shutil, "rmtree", refuses)
        patch.setattr(staging.Path, "rmdir", refuses)
        zoo.remove(entry.ref)
    assert zoo.entries() == []
    assert len(list(zoo.root.rglob(".tmp-*"))) == 1
    assert store(zoo, manifest()).digest == entry.digest
    assert list(zoo.root.rglob(".tmp-*")) == []
