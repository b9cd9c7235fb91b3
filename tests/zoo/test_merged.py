"""Zoos of several people in one: the same run twice is kept, named apart and counted once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub_bench import hub
from loopback_state import Hub
from zoo_bench import composition, manifest, predictions, store, task

from mtl.cli.main import dispatch
from mtl.errors import RequestError, RunError, ZooError
from mtl.hub import parse_repo, pull, push
from mtl.report import render_suite, results, suite_tables
from mtl.zoo import Entry, Zoo, open_zoo
from mtl.zoo.merged import again, again_text, beside, first_of, once, plain, same_run
from mtl.zoo.packing import pack, unpack
from mtl.zoo.sharing import copy

__all__ = ["hub"]  # the fixture
NAME = "own/pfeiffer/seed0"


@pytest.fixture
def ours(tmp_path: Path) -> Zoo:
    return open_zoo(tmp_path / "ours")


@pytest.fixture
def theirs(tmp_path: Path) -> Zoo:
    return open_zoo(tmp_path / "theirs")


def scored(value: float) -> dict[str, Any]:
    return {"test": {"accuracy": {"value": value, "stderr": 0.2, "n": 4}}}


def result(zoo: Zoo, value: float = 1.0, accuracy: float = 0.5, **changes: Any) -> Entry:
    """A result of the run; another ``value`` is another machine's last digits."""
    return store(zoo, manifest(metrics=scored(accuracy), **changes), value)


def unpacked(zoo: Zoo, other: Zoo, tmp_path: Path) -> list[dict[str, str]]:
    pack(zoo, [], tmp_path / "x.mtlzoo", replace=True)
    return unpack(other, tmp_path / "x.mtlzoo").entries


def copied(zoo: Zoo, other: Zoo, tmp_path: Path) -> list[dict[str, str]]:
    return copy(zoo, [], other).entries


@pytest.mark.parametrize("share", [unpacked, copied])
def test_both_results_of_a_run_are_kept(share: Any, ours: Zoo, theirs: Zoo, tmp_path: Path) -> None:
    mine, other = result(ours), result(theirs, 1.0001)
    assert (mine.ref, mine.manifest.runhash) == (other.ref, other.manifest.runhash)
    place = f"{mine.ref}+{other.digest[:8]}"
    (row,) = share(theirs, ours, tmp_path)
    assert (row["ref"], row["digest"]) == (place, other.digest)
    assert row["status"] in {"copied", "unpacked"}
    assert [entry.ref for entry in ours.entries()] == [mine.ref, place]
    assert ours.fsck() == []
    # the same again is nothing to do, and has the name that it has here
    (row,) = share(theirs, ours, tmp_path)
    assert row["status"] == "there"
    assert len(ours.entries()) == 2
    # names mean what they meant before; the other one has its own
    for name in (mine.ref, NAME, NAME + "-" + mine.manifest.runhash[:8], mine.manifest.runhash):
        assert ours.get(name).digest == mine.digest, name
    for name in (place, other.digest, f"{NAME}-{mine.manifest.runhash[:8]}+{other.digest[:8]}"):
        assert ours.get(name).digest == other.digest, name
    # a third machine
    third = open_zoo(tmp_path / "third")
    result(third, 1.0002)
    share(third, ours, tmp_path)
    assert len(ours.entries()) == 3
    # and all of it somewhere else
    fourth = open_zoo(tmp_path / "fourth")
    share(ours, fourth, tmp_path)
    assert [e.digest for e in fourth.entries()] == [e.digest for e in ours.entries()]
    assert fourth.fsck() == []
    # where the first is gone, its name finds what is left of the run, if that is one
    fourth.remove(mine.ref)
    with pytest.raises(RequestError, match="ambiguous"):
        fourth.get(NAME)
    fourth.remove(place)
    assert fourth.get(NAME).ref.rpartition("+")[0] == mine.ref


def test_sources_are_found_by_digest(ours: Zoo, theirs: Zoo, tmp_path: Path) -> None:
    """A composition over their result of a source comes with it, although ours is there."""
    mine, other = result(ours), result(theirs, 1.0001)
    omega = np.ones((2, 1, 3), np.float32)
    whole = composition(theirs, [other], omega, run_settings={"lr": 0.5})
    rows = copied(theirs, ours, tmp_path)
    assert [row["ref"] for row in rows] == [beside(mine.ref, other.digest), whole.ref]
    assert ours.fsck() == []
    assert ours.users(other.digest)[0].digest == whole.digest
    assert ours.users(mine.digest) == []
    with pytest.raises(RequestError, match="is needed by"):
        ours.remove(beside(mine.ref, other.digest))


def test_what_a_source_means_does_not_change(ours: Zoo, theirs: Zoo, tmp_path: Path) -> None:
    mine, other = result(ours), result(theirs, 1.0001, verified={"n": 4})
    copied(theirs, ours, tmp_path)
    assert first_of(ours.entries()) == [ours.get(mine.ref)]
    ours.remove(mine.ref)
    assert [entry.digest for entry in first_of(ours.entries())] == [other.digest]


def test_reports_count_a_run_once(
    ours: Zoo, theirs: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    early, late = "2025-01-01T00:00:00+00:00", "2026-06-01T00:00:00+00:00"
    result(ours, accuracy=0.5, created=late)
    result(ours, accuracy=0.6, seed=1)
    result(theirs, 1.0001, accuracy=0.75, created=early)
    copied(theirs, ours, tmp_path)
    entries = ours.entries()
    (row,) = results(entries)
    assert row.seeds == [0, 1]
    assert row.scores == {0: 0.75, 1: 0.6}  # the earliest
    result(theirs, 2.0, accuracy=0.25, task=task("x"))  # no matter
    third = open_zoo(tmp_path / "third")
    result(third, 1.0003, accuracy=0.25, created=late, verified={"n": 4})
    copied(third, ours, tmp_path)
    (row,) = results(ours.entries())
    assert row.scores == {0: 0.25, 1: 0.6}  # the verified one
    (found,) = again(ours.entries())
    assert (len(found.others), found.metric, found.split) == (2, "accuracy", "test")
    assert found.difference == pytest.approx(0.5)
    assert "0.25" not in render_suite(*suite_tables(entries))
    assert dispatch("report", ["--zoo", str(ours.root)]) == 0
    said = capsys.readouterr()
    assert "1 run has results of several machines" in said.err
    assert "largest difference 0.5 (accuracy on test)" in said.err
    assert " 2 " in said.out.splitlines()[2]  # seeds
    assert dispatch("report", ["--zoo", str(ours.root), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [item["counted"] for item in told["twice"]] == [found.counted]
    assert told["rows"][0]["seeds"] == [0, 1]
    page = tmp_path / "page.html"
    assert dispatch("report", ["--zoo", str(ours.root), "--html", str(page)]) == 0
    assert "1 run has results of several machines" in page.read_text(encoding="utf-8")
    assert "2 runs of 1 task" in page.read_text(encoding="utf-8")


def test_many_are_said_in_few_lines(ours: Zoo, tmp_path: Path) -> None:
    entries = []
    for number in range(9):
        one = result(ours, seed=number, accuracy=0.5)
        other = replace(
            one,
            ref=beside(one.ref, "f" * 64),
            digest="f" * 64,
            manifest=replace(one.manifest, metrics=scored(0.5 + number / 100)),
        )
        entries += [one, other]
    lines = again_text(entries)
    assert len(lines) == 7
    assert lines[1].endswith("largest difference 0.08 (accuracy on test)")
    assert lines[-1] == "4 more differ by at most 0.03"
    assert again_text(entries[:1]) == []
    assert len(once(entries)) == 9


def test_results_travel_by_the_hub(hub: Hub, ours: Zoo, theirs: Zoo, tmp_path: Path) -> None:
    repo = parse_repo("ada/zoo")
    other = result(theirs, 1.0001, accuracy=1.0, verified={"n": 4})
    push(theirs, [other.ref], repo)
    mine = result(ours, verified={"n": 4})
    place = beside(mine.ref, other.digest)
    for status in ("pulled", "there"):
        (row,) = pull(ours, repo).entries
        assert (row["ref"], row["status"]) == (place, status)
    assert ours.fsck() == []
    both = parse_repo("ada/both")
    push(ours, [mine.ref, place], both)
    fresh = open_zoo(tmp_path / "fresh")
    pull(fresh, both)
    assert {e.ref: e.digest for e in fresh.entries()} == {
        mine.ref: mine.digest,
        place: other.digest,
    }


# --------------------------------------------------------------- strangers


def test_a_claimed_run_is_not_that_run(ours: Zoo, theirs: Zoo, tmp_path: Path) -> None:
    """The hash of a run is a word in a manifest; settings, data, seed and sources must agree."""
    mine = result(ours)
    for number, changes in enumerate(
        (
            {"run_settings": {"lr": 1.0}},
            {"method_settings": {"reduction_factor": 2.0}},
            {"data": {**manifest().data, "fingerprint": "00" * 32}},
        )
    ):
        other = open_zoo(tmp_path / str(number))
        claims = result(other, 9.0, accuracy=1.0, verified={"n": 4}, created="0001", **changes)
        assert claims.manifest.runhash == mine.manifest.runhash
        assert not same_run(claims.manifest, mine.manifest)
        with pytest.raises(RunError, match="result of another run there"):
            copied(other, ours, tmp_path)
        # had it been put there all the same, ours would still count
        assert mine in once([claims, mine])
        assert again([claims, mine]) == []
    assert [entry.digest for entry in ours.entries()] == [mine.digest]


def test_a_name_that_lies(ours: Zoo, theirs: Zoo, tmp_path: Path) -> None:
    """A digest in a name that is not the entry's own; a name that says two."""
    mine = result(ours)
    other = result(theirs, 1.0001)
    lying = other.folder.rename(theirs.path(f"{mine.ref}+{'0' * 8}"))
    for share in (copied, unpacked):
        with pytest.raises(ZooError, match=r"says the digest 00000000, its manifest"):
            share(theirs, ours, tmp_path)
    lie = lying.rename(ours.path(theirs.ref(lying)))
    found = ours.fsck()
    assert [(problem.kind, problem.path) for problem in found] == [("name", ours.ref(lie))]
    assert other.digest[:8] in found[0].remedy
    assert ours.get(NAME).digest == mine.digest
    lie.rename(ours.path(beside(mine.ref, other.digest)))
    assert ours.fsck() == []
    assert plain("a+b/c+d+e") == "a+b/c"
    assert plain("a/b") == "a/b"


def test_a_result_that_says_it_is_another_one(ours: Zoo, theirs: Zoo, tmp_path: Path) -> None:
    """Same digest in the manifest, other bytes: refused at the door, as ever."""
    result(ours)
    other = result(theirs, 1.0001)
    predictions(other.folder, [0, 0, 0, 0])
    with pytest.raises(Exception, match="damaged"):
        copied(theirs, ours, tmp_path)
    assert len(ours.entries()) == 1
