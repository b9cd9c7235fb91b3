"""Files of evidence: as they were written, refused, by many processes at once."""

from __future__ import annotations

import math
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from graph_bench import finding

from mtl.errors import RequestError, ZooError
from mtl.graph import graph_folder, read_evidence
from mtl.graph.evidence import evidence_file, read_file, write_evidence


def test_evidence_comes_back_as_it_was(tmp_path: Path) -> None:
    items = [
        finding(low=-0.1, high=0.3, n=40, layers={"0": 0.5, "1": 0.25}, provenance={"a": [1]}),
        finding(source="toy/own", kind="reliance", seeds=()),
    ]
    path = write_evidence(tmp_path, "compose-1", items)
    assert path == evidence_file(tmp_path, "compose-1")
    assert read_evidence(tmp_path) == (items, [])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"value": math.nan}, r"value\s+Input should be a finite number"),
        ({"low": math.inf}, r"low\s+Input should be a finite number"),
        ({"layers": {"0": math.nan}}, r"layers\.0\s+Input should be a finite number"),
        ({"kind": "guessed"}, "'guessed'"),
        ({"source": ""}, r"source\s+String should have at least 1 character"),
        ({"value": "1"}, "valid number.*input_value='1'"),
        ({"value": 1e31}, r"value\s+Input should be less than or equal to"),
        ({"seeds": (True,)}, r"seeds\.0\s+Input should be a valid integer"),
    ],
)
def test_evidence_that_says_nothing_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        finding(**change)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "no evidence of schema 1"),
        ('{"schema_version": 99, "evidence": []}', "it says 99"),
        (
            '{"schema_version": 1, "evidence": [{"source": "a"}]}',
            "is damaged: evidence[0]: the key 'target' is missing. Remove it.",
        ),
        (
            '{"schema_version": 1, "evidence": [3]}',
            "is damaged: evidence[0]: should be an object, found 3. Remove it.",
        ),
        (
            '{"schema_version": 1, "evidence": [{"source": "a", "target": "b", "kind": "measured", '
            '"method": "m", "value": 1, "evil": 2}]}',
            "is damaged: evidence[0]: unknown key 'evil'.",
        ),
        (
            '{"schema_version": 1, "evidence": [{"source": "a", "target": "b", "kind": "measured", '
            '"method": "m", "value": 1, "provenance": {"entry": {"ref": 7}}}]}',
            "is damaged: evidence[0].provenance: it.entry.ref: should be a valid string, found 7.",
        ),
    ],
)
def test_a_damaged_file_is_named_and_the_others_are_read(
    content: str, said: str, tmp_path: Path
) -> None:
    write_evidence(tmp_path, "good", [finding()])
    bad = evidence_file(tmp_path, "bad")
    bad.write_text(content)
    found, problems = read_evidence(tmp_path)
    assert found == [finding()]
    assert len(problems) == 1
    assert str(bad) in problems[0]
    assert said in problems[0]
    with pytest.raises(ZooError):
        read_file(bad)


def test_names_of_runs_cannot_leave_the_folder(tmp_path: Path) -> None:
    for name in ("../x", "", ".hidden", "a/b"):
        with pytest.raises(RequestError):
            evidence_file(tmp_path, name)


def _write(folder: Path, number: int) -> None:
    write_evidence(folder, f"run-{number}", [finding(seeds=(number,), value=float(number))])


def test_runs_that_end_at_once_lose_nothing(tmp_path: Path) -> None:
    with ProcessPoolExecutor(4) as pool:
        list(pool.map(_write, [tmp_path] * 24, range(24)))
    found, problems = read_evidence(tmp_path)
    assert not problems
    assert sorted(item.seeds[0] for item in found) == list(range(24))


def test_where_evidence_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert graph_folder(tmp_path / "zoo") == tmp_path / "zoo.graph"
    monkeypatch.setenv("MTL_GRAPH", str(tmp_path / "other"))
    assert graph_folder(tmp_path / "zoo") == tmp_path / "other"
    assert graph_folder(tmp_path / "zoo", "here") == Path("here")
