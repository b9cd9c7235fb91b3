"""Remarks about labels that can be read: each says what, where, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from task_bench import file_task, write_jsonl

from mtl.checks.checking import check_task
from mtl.checks.drafts import draft_task
from mtl.checks.findings import Finding
from mtl.checks.label_remarks import Seen, label_remarks, parts_of
from mtl.tasks.label_forms import differences, number_form

CASES: dict[str, tuple[list[str], str, list[str]]] = {
    "case": (["Neg", "pos", "neg"], "labels-alike", ["'Neg' (10), 'neg' (10)", "only in case"]),
    "decomposed": (["café", "cafe\u0301", "tea"], "labels-alike", ["in Unicode form (NFC or NFD)"]),
    "full width": (["ａ", "a", "b"], "labels-alike", ["in Unicode compatibility form"]),
    "invisible": (["a\u200b", "a", "b"], "labels-alike", ["in invisible characters"]),
    "two spaces": (["not  it", "not it", "b"], "labels-alike", ["in spaces"]),
    "case and spaces": (["not  It", "not it", "b"], "labels-alike", ["in case and in spaces"]),
    "leading zeros": (["007", "7", "8"], "labels-alike", ["in how a number is written"]),
    "dashes": (["a-b", "a–b", "c"], "labels-alike", ["in the kind of dash"]),
    "percent": (["0%", "50%", "100%"], "number-names", ["3 of 3", "percent sign", "write 0 for"]),
    "grouped": (["1 000", "2 000", "9 500"], "number-names", ["grouped digits", "write 1000"]),
    "sets by slash": (["a/b", "a", "b"], "label-separator", ["'a/b'", 'label_separator: "/"']),
    "a mark": (["1", "2", "NA"], "missing-mark", ["'NA' is a class", "remove these rows"]),
}


@pytest.mark.parametrize("case", list(CASES))
def test_new_and_check_say_the_same_of_labels(case: str, tmp_path: Path) -> None:
    """Both read one function; each names rows, and `new` writes the task all the same."""
    labels, check, parts = CASES[case]
    rows = [{"a": f"some old cat {n}", "label": labels[n % 3]} for n in range(30)]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    draft = draft_task("own/x", {"train": path}, tmp_path)
    said = [guess for guess in draft.guesses if parts[0] in guess]
    assert said
    assert f"of {path}: {labels[0]}" in said[0] or f"of {path}: {labels[2]}" in said[0]
    spec = file_task(tmp_path, {"train": rows}, inputs=("{a}",), labels=draft.content["labels"])
    report = check_task(spec, protocol="holdout", near=0)
    (found,) = [finding for finding in report.findings if finding.check == check]
    assert found.level == "remark"
    for part in parts:
        assert part in found.text
    assert all(example.place.startswith("line ") for example in found.examples)
    assert {example.text for example in found.examples} <= set(labels)


def remarks(names: Any, kind: str = "classification") -> list[Finding]:
    return list(label_remarks({name: Seen(3, ["line 1"]) for name in names}, kind))


def test_many_classes_out_of_numbers() -> None:
    (found,) = remarks(map(str, range(300)))
    assert (found.check, found.count) == ("many-numbers", 900)
    assert "all 300 labels are numbers; `kind: regression`" in found.text
    assert not remarks(map(str, range(20)))


@pytest.mark.parametrize(
    "names",
    [
        ["neg", "neutral", "pos"],
        ["-1", "0", "1"],
        ["none", "favor", "against"],
        ["n/a", "yes", "no"][1:],
        ["food, drinks", "service, staff", "price"],
        ["C", "C++", "C#"],
        ["A", "A+", "B", "B+"],
        ["01", "02", "10"],
        ["Δ", "δ2"],
    ],
)
def test_nothing_is_said_of_sound_labels(names: list[str]) -> None:
    assert not remarks(names)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("3,7", ("a decimal comma", "3.7")),
        ("0,123", ("a decimal comma", "0.123")),
        ("1.234,5", ("a decimal comma", "1234.5")),
        ("1,234", ("a thousands separator or a decimal comma", "1234 or 1.234")),
        ("1.234.567", ("thousands separators", "1234567")),
        ("1,234,567", ("thousands separators", "1234567")),
        ("50 %", ("a percent sign", "50")),
        ("2,5%", ("a percent sign", "2.5")),
        ("1_000", ("grouped digits", "1000")),
        ("１２", ("digits or signs that are not plain ones", "12")),
        ("−1", ("digits or signs that are not plain ones", "-1")),
        ("3.7", None),
        ("007", None),
        ("word", None),
        ("1, 2", None),
        ("12:30", None),
    ],
)
def test_numbers_that_are_written_as_words(text: str, form: Any) -> None:
    assert number_form(text) == form


@pytest.mark.parametrize(
    ("cells", "found"),
    [
        (["1.234", "12.500", "999", "3.100"], 3),
        (["1.234", "12.5", "3.100", "4.100"], 0),
        (["0.234", "0.500", "1.100", "2.500", "3.500"], 0),
    ],
)
def test_points_that_may_group_thousands(cells: list[str], found: int, tmp_path: Path) -> None:
    rows = [
        {"a": f"some old cat {n}", "score": cells[n % len(cells)]} for n in range(10 * len(cells))
    ]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    draft = draft_task("own/x", {"train": path}, tmp_path)
    said = [text for text in draft.guesses if "groups thousands, write 1234 (line 1 of" in text]
    keys = {"kind": "regression", "labels": (), "metrics": ("pearson",), "label_column": "score"}
    spec = file_task(tmp_path, {"train": rows}, inputs=("{a}",), **keys)
    report = check_task(spec, protocol="holdout", near=0)
    counts = [f.count for f in report.findings if f.check == "point-thousands"]
    assert (len(said), counts) == ((1, [found * 10]) if found else (0, []))


def test_a_column_of_what_is_no_label_is_said_shortly(tmp_path: Path) -> None:
    rows = [{"a": f"some old cat {n}", "label": f"{n},5"} for n in range(40)]
    keys = {"kind": "regression", "labels": (), "metrics": ("pearson",)}
    spec = file_task(tmp_path, {"train": rows}, inputs=("{a}",), **keys)
    *first, last = check_task(spec, protocol="holdout").of_level("problem")
    assert len(first) == 12
    assert "'0,5' is no number. It has a decimal comma: write 0.5" in first[0].text
    assert (
        last.text
        == f"train: further labels that are none, from line 13 of {tmp_path / 'train.jsonl'} on"
    )


def test_parts_only_where_they_come_again() -> None:
    assert parts_of(["a;b", "a", "b"]) == (";", ["a", "b"])
    assert parts_of(["a, b", "b, c", "a, c", "c"]) == (",", ["a", "b", "c"])
    assert parts_of(["a;b", "c"]) is None
    assert parts_of(["Paris, TX", "Austin, TX", "Rome, GA"]) is None
    assert parts_of(["0,5", "0,7", "5", "7"]) is None
    assert differences(["A", "a"]) == ["in case"]
