"""A zoo is gone through once where many questions are asked of it, and read only where it must."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from zoo_bench import composition, manifest, store, task

from mtl.compose.stored import find_parents
from mtl.graph.collect import record
from mtl.zoo import Entry, Zoo, open_zoo, reader, summary


@pytest.fixture
def zoo(tmp_path: Path) -> Zoo:
    found = open_zoo(tmp_path / "zoo")
    for number in range(4):
        store(found, manifest(seed=number, runhash=f"{number:016x}"), float(number))
    return found


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every walk through a zoo."""
    found: list[str] = []
    real = reader.places

    def counted(root: Path, below: str, report: object) -> object:
        found.append(below)
        return real(root, below, report)  # type: ignore[arg-type]

    monkeypatch.setattr(reader, "places", counted)
    return found


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every manifest that is read, in a zoo whose listing is kept however little is new."""
    monkeypatch.setattr(summary, "WORTH_WRITING", 1)
    found: list[str] = []
    real = reader.read_manifest

    def counted(path: Path, where: str) -> object:
        found.append(where)
        return real(path, where)

    monkeypatch.setattr(reader, "read_manifest", counted)
    return found


def test_one_walk_answers_all_that_is_asked(zoo: Zoo, walks: list[str]) -> None:
    expected = [zoo.entries(seed=seed) for seed in range(4)]
    walks.clear()
    with zoo.one_look():
        assert [zoo.entries(seed=seed) for seed in range(4)] == expected
        with zoo.one_look():
            assert len(zoo.summaries(task="own")) == 4
        (below,) = zoo.entries(below=expected[2][0].ref)
        assert below.manifest.seed == 2
        assert zoo.entries(below="tiny-abababab/to") == []
    assert len(walks) == 1


def test_what_is_stored_meanwhile_is_seen_after_it(zoo: Zoo) -> None:
    with zoo.one_look():
        assert len(zoo.entries()) == 4
        new = store(zoo, manifest(seed=9, runhash=f"{9:016x}"))
        assert len(zoo.entries()) == 4
    assert new in zoo.entries()


def test_what_stands_at_a_place_is_read_without_a_walk(zoo: Zoo, walks: list[str]) -> None:
    (entry,) = zoo.entries(seed=1)
    walks.clear()
    assert zoo.at(entry.ref) == entry
    assert zoo.at("tiny-abababab/toy/own/pfeiffer/seed7-00000000") is None
    (entry.folder / "manifest.json").write_text("{}")
    assert zoo.at(entry.ref) is None
    assert walks == []


def _composed(zoo: Zoo) -> tuple[Entry, list[Entry]]:
    other = store(zoo, manifest(task=task("other"), runhash="a" * 16), 9.0)
    parents = [other, zoo.entries(seed=0, task="own")[0]]
    return composition(zoo, parents, np.ones((2, 2, 8), np.float32)), parents


def test_only_the_sources_of_a_composition_are_read(zoo: Zoo, read: list[str]) -> None:
    entry, parents = _composed(zoo)
    open_zoo(zoo.root).summaries()  # from then on the listing is known
    read.clear()
    assert find_parents(entry, open_zoo(zoo.root)) == parents
    assert sorted(read) == sorted(parent.ref for parent in parents)


def test_the_evidence_of_one_run_reads_its_own_target_alone(zoo: Zoo, read: list[str]) -> None:
    store(zoo, manifest(task=task("third"), runhash="b" * 16), 5.0)
    entry, _ = _composed(zoo)
    open_zoo(zoo.root).summaries()
    read.clear()
    assert record(open_zoo(zoo.root), zoo.root / "graph", [entry]).written == 1
    assert {ref.split("/")[2] for ref in read} <= {"own"}
