"""One reader of label cells: what drafting writes into a task file, loading reads from the data."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl.checks.drafts import draft_task
from mtl.data import load_data
from mtl.errors import RequestError
from mtl.tasks.label_cells import read_cell, read_list
from mtl.tasks.label_columns import LabelColumn
from mtl.tasks.labels import read_class_labels, read_numbers
from mtl.tasks.spec import TaskSpec

NAN = float("nan")
MISSING = "missing"
CELLS: list[tuple[Any, Any, Any]] = [
    # cell, what a class of it is called, its value as a number
    (None, MISSING, MISSING),
    ("", MISSING, MISSING),
    ("  ", MISSING, MISSING),
    (NAN, MISSING, MISSING),
    ("nan", MISSING, MISSING),
    (" NaN ", MISSING, MISSING),
    (1, "1", 1),
    (1.0, "1", 1),
    ("1.0", "1", 1),
    ("1.", "1", 1),
    ("+1", "1", 1),
    ("1e3", "1000", 1000),
    ("-0.0", "0", 0),
    (" 2 ", "2", 2),
    (0.5, "0.5", 0.5),
    ("0.50", "0.50", 0.5),
    ("1.10", "1.10", 1.1),
    (Decimal("2.00"), "2", 2),
    ("007", "007", 7),
    ("00", "00", 0),
    (12345678901234567, "12345678901234567", 12345678901234567),
    ("12345678901234567890", "12345678901234567890", 12345678901234567890),
    ("１", "１", None),
    ("1_0", "1_0", None),
    ("−1", "−1", None),
    ("1,5", "1,5", None),
    ("50%", "50%", None),
    ("inf", "inf", None),
    ("9" * 70, "9" * 70, None),
    ("1e99999", "1e99999", None),
    ("True", "True", None),
    (True, "true", None),
    ("not good ", "not good", None),
]


@pytest.mark.parametrize(("cell", "name", "number"), CELLS)
def test_what_a_cell_is(cell: Any, name: str, number: Any) -> None:
    found = read_cell(cell)
    assert found.missing == (name == MISSING)
    if not found.missing:
        assert found.name == name
        expected = None if number is None else float(number)
        assert (None if found.number is None else float(found.number)) == expected


def test_values_that_are_no_label() -> None:
    for value, what in (({"a": 1}, "an object"), ([1], "a list"), (b"x", "bytes")):
        assert read_cell(value).strange == what
        assert read_cell(value).number is None


def column(values: Sequence[Any]) -> LabelColumn:
    return LabelColumn(pa.chunked_array([pa.array(values)]), None, "Task", lambda row: f"row {row}")


@pytest.mark.parametrize(("cell", "name", "number"), CELLS)
def test_loading_reads_a_cell_so(cell: Any, name: str, number: Any) -> None:
    """The class of a cell is found under its name; as a number it is its value."""
    if isinstance(cell, int) and cell > 1 << 53:
        cell = np.int64(cell).item()
    one = column([cell] if cell is not None else pa.array([None], pa.string()))
    if name == MISSING:
        with pytest.raises(RequestError, match="no label"):
            read_class_labels(one, ["0", "1"])
        with pytest.raises(RequestError, match=r"no label|not a finite number"):
            read_numbers(one)
        return
    assert read_class_labels(one, ["another", name]).tolist() == [1]
    if number is not None:
        assert read_numbers(one).tolist() == [np.float32(number)]
    else:
        with pytest.raises(RequestError, match="is no number"):
            read_numbers(one)


def test_float32_is_the_limit_of_numbers() -> None:
    with pytest.raises(RequestError, match=r"row 1: the label is 1e39, not a finite number \(1"):
        read_numbers(column(["1", "1e39"]))


def test_minus_one_is_hidden_unless_it_is_a_class() -> None:
    assert read_class_labels(column([-1, 1]), ["-1", "1"]).tolist() == [0, 1]
    for cells in ([1, -1], ["1", "-1"], [1.0, -1.0]):
        for labels in (["0", "1"], ["no", "yes"]):
            with pytest.raises(RequestError, match="row 1: the label is -1, which marks hidden"):
                read_class_labels(column(cells), labels)
    assert read_numbers(column([-1.0, 0.5])).tolist() == [-1.0, 0.5]
    with pytest.raises(RequestError, match="every label is -1, which marks hidden"):
        read_numbers(column([-1.0, -1.0]))


def test_places_in_the_list_only_where_no_label_is_a_number() -> None:
    assert read_class_labels(column([2, 0]), ["a", "b", "c"]).tolist() == [2, 0]
    # YAML's 1.0 is written "1.0"; the cell 1 is that label and not the second one
    assert read_class_labels(column([1, 2]), ["1.0", "2.0"]).tolist() == [0, 1]
    assert read_class_labels(column([True, False]), ["1", "0"]).tolist() == [0, 1]
    for cell, labels in ((1, ["01", "02"]), (2, ["0", "1", "unsure"]), ("7", ["007", "008"])):
        with pytest.raises(RequestError, match="is none of the labels"):
            read_class_labels(column([cell]), labels)


def test_a_label_that_is_nearly_one_of_the_task() -> None:
    for cell, how in (
        ("Neg", "'neg' only in case"),
        ("neg\u200b", "'neg' only in invisible characters"),
        ("ｎeg", "'neg' only in Unicode compat"),
        ("pose\u0301", "'posé' only in Unicode form"),
        ("a  b", "'a b' only in spaces"),
    ):
        with pytest.raises(RequestError, match=f"It differs from {how}"):
            read_class_labels(column([cell]), ["neg", "posé", "a b"])
    with pytest.raises(RequestError, match=r"It has a decimal comma: write 3\.7"):
        read_numbers(column(["3,7"]))


LISTS = [
    ("['a', 'b c']", ["a", "b c"]),
    ("['a' 'b']", ["a", "b"]),
    ('["a","b"]', ["a", "b"]),
    ("[1 0 0]", ["1", "0", "0"]),
    ("[1. 0.]", ["1.", "0."]),
    ("[ 1 0\n 1]", ["1", "0", "1"]),
    ("[very good, bad]", ["very good", "bad"]),
    ("('a',)", ["a"]),
    ("{'a', 'b'}", ["a", "b"]),
    ("['don\\'t']", ["don't"]),
    ("[]", []),
    ("[0 0 ... 1]", ["0", "0", "...", "1"]),
    ("(sic)", None),
    ("{'a': 1}", None),
    ("[[1, 0]]", None),
    ("[a,,b]", None),
    ("a;b", None),
    ("[", None),
]


@pytest.mark.parametrize(("text", "items"), LISTS)
def test_lists_written_as_text(text: str, items: Any) -> None:
    assert read_list(text) == items


# cells of a CSV column (repeated), the kind that is guessed, its labels, and what each cell is
DRAFTS: dict[str, tuple[list[str], str, list[str], list[Any]]] = {
    "0.0/1.0": (["0.0", "1.0"], "classification", ["0", "1"], [0, 1]),
    "1 and 1.0": (["1", "1.0", "2"], "classification", ["1", "2"], [0, 0, 1]),
    "exponents": (["1e3", "2e3"], "classification", ["1000", "2000"], [0, 1]),
    "hexadecimal": (["1e3", "a4f", "1000"], "classification", ["1000", "1e3", "a4f"], [1, 2, 0]),
    "full width": (["１", "1"], "classification", ["1", "１"], [1, 0]),
    "underscores": (["1_0", "2_0"], "classification", ["1_0", "2_0"], [0, 1]),
    "leading zeros": (["007", "7"], "classification", ["007", "7"], [0, 1]),
    "months": (["01", "02", "10"], "classification", ["01", "02", "10"], [0, 1, 2]),
    "20-digit ids": (
        ["12345678901234567890", "12345678901234567891"],
        "classification",
        ["12345678901234567890", "12345678901234567891"],
        [0, 1],
    ),
    "-1 as a class": (["-1", "0", "1"], "classification", ["-1", "0", "1"], [0, 1, 2]),
    "versions": (["v", "1.1", "1.10"], "classification", ["1.1", "1.10", "v"], [2, 0, 1]),
    "fractions": (["0.5", "1", "1.50"], "regression", [], [0.5, 1.0, 1.5]),
    "words": (["True", "False"], "classification", ["False", "True"], [1, 0]),
    "sets": (["a;b", "a", "b"], "multilabel", ["a", "b"], [[1, 1], [1, 0], [0, 1]]),
    "sets, one empty": (["a|b", "b", "a", ""], "multilabel", ["a", "b"], [[1, 1], [0, 1], [1, 0], [0, 0]]),  # noqa: E501
    "lists": (["['a', 'b']", "['a']"], "multilabel", ["a", "b"], [[1, 1], [1, 0]]),
    "numpy": (["['a' 'b']", "[]"], "multilabel", ["a", "b"], [[1, 1], [0, 0]]),
    "vectors": (["[1 0 1]", "[0 0 1]"], "multilabel", [f"label_{n}" for n in range(3)], [[1, 0, 1], [0, 0, 1]]),  # noqa: E501
    "one-hot": (["[1, 0]", "[0, 1]"], "classification", ["label_0", "label_1"], [0, 1]),
}  # fmt: skip


def write_cells(path: Path, cells: Sequence[str], rows: int = 60) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label"])
        writer.writerows([f"some old cat {n}", cells[n % len(cells)]] for n in range(rows))
    return path


@pytest.mark.parametrize("case", list(DRAFTS))
def test_what_is_drafted_is_what_is_loaded(case: str, tmp_path: Path) -> None:
    cells, kind, labels, expected = DRAFTS[case]
    path = write_cells(tmp_path / "a.csv", cells)
    files = {"train": path, "validation": path, "test": path}
    draft = draft_task("my/x", files, tmp_path)
    assert draft.content["kind"] == kind
    assert draft.content.get("labels", []) == labels
    data = load_data(TaskSpec.from_dict(draft.content, tmp_path / "x.yaml"), protocol="official")
    assert data.splits["train"].labels[: len(cells)].tolist() == expected
    assert len(data.splits["train"]) == 60


@pytest.mark.parametrize(
    ("cells", "kind", "labels"),
    [(["1", "2", "nan"], "classification", ["1", "2"]), (["0.5", "", "nan"], "regression", None)],
)
def test_rows_without_a_label(cells: list[str], kind: str, labels: Any, tmp_path: Path) -> None:
    """Numbers with holes are what the numbers are; drafting and loading name the same rows."""
    path = write_cells(tmp_path / "a.csv", cells)
    draft = draft_task("my/x", {"train": path}, tmp_path)
    assert (draft.content["kind"], draft.content.get("labels")) == (kind, labels)
    empty = sum(cell in ("", "nan") for cell in cells) * 20
    first = 2 + next(n for n, cell in enumerate(cells) if cell in ("", "nan"))
    said = [guess for guess in draft.guesses if "have no label" in guess]
    assert said[0].startswith(f"{empty} of 60 rows have no label (first: line {first} of {path})")
    with pytest.raises(RequestError, match=rf"line {first} of .*\({empty} such rows\)"):
        load_data(TaskSpec.from_dict(draft.content, tmp_path / "x.yaml"), protocol="holdout")


def test_a_test_file_with_hidden_labels_is_left_out(tmp_path: Path) -> None:
    train = write_cells(tmp_path / "a.csv", ["0", "1"])
    hidden = write_cells(tmp_path / "b.csv", ["-1"])
    draft = draft_task("my/x", {"train": train, "test": hidden}, tmp_path)
    assert draft.content["data"]["files"] == {"train": "a.csv"}
    assert draft.content["labels"] == ["0", "1"]
    assert "test left out, because all labels there are -1 (hidden)" in draft.guesses[0]
    # where train has the class, too, a test file of that class is one
    train = write_cells(tmp_path / "a.csv", ["-1", "1"])
    draft = draft_task("my/x", {"train": train, "test": hidden}, tmp_path)
    assert list(draft.content["data"]["files"]) == ["train", "test"]
    assert any("-1 is taken for a class" in guess for guess in draft.guesses)


REFUSED: dict[str, tuple[list[str], str | None, str]] = {
    "decimal commas": (["0,5", "3,7"], None, r"comma, such as .0,5. \(line 2 of .*write 0.5"),
    "percent": ([f"{n}%" for n in range(30)], None, "percent sign.*--kind classification"),
    "thousands": (["1,200", "900", "3,400"], None, "thousands separator or a decimal comma"),
    "one odd cell": ([*map(str, range(29)), "NA"], None, r"29 different numbers, and 'NA' \(line"),
    "codes": ([f"{n:03}" for n in range(30)], None, "--kind regression; if they name classes"),
    "ids": ([str(10**19 + n) for n in range(30)], None, "identifiers are: '1000000000000000000"),
    "words as numbers": (["a", "b"], "regression", "needs numbers, and .* names: 'a', 'b'"),
    "no sets": (["a", "b"], "multilabel", "no separator such as 'a;b'"),
    "lists as classes": (["['a', 'b']", "[]"], "classification", "Say --kind multilabel"),
    "one class": (["1", "1.0"], None, "holds only '1'"),
    "empty lists": (["[]"], None, "holds no label in any row"),
    "no label": (["", "nan"], None, "holds no label in any row"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_may_be_two_things_is_asked(case: str, tmp_path: Path) -> None:
    cells, kind, message = REFUSED[case]
    path = write_cells(tmp_path / "a.csv", cells)
    with pytest.raises(RequestError, match=message):
        draft_task("my/x", {"train": path}, tmp_path, kind=kind)


@pytest.mark.parametrize("cells", [["0,5", "3,7"], [f"{n:03}" for n in range(30)]])
def test_both_ways_out_are_open(cells: list[str], tmp_path: Path) -> None:
    """What the refusal recommends is accepted."""
    path = write_cells(tmp_path / "a.csv", cells)
    draft = draft_task("my/x", {"train": path}, tmp_path, kind="classification")
    assert draft.content["labels"] == cells
    path = write_cells(tmp_path / "b.csv", [cell.replace(",", ".") for cell in cells])
    draft = draft_task("my/x", {"train": path}, tmp_path, kind="regression")
    data = load_data(TaskSpec.from_dict(draft.content, tmp_path / "x.yaml"), protocol="holdout")
    assert data.sizes["train"] > 40


POOL = [
    *(
        "0",
        "1",
        "2",
        "-1",
        "1.0",
        "0.5",
        "1e3",
        "007",
        "nan",
        "",
        "NA",
        "a",
        "b",
        "A",
        "a;b",
        "b;a",
    ),
    *(
        "['a','b']",
        "['a']",
        "[]",
        "[1, 0]",
        "[0 1]",
        "True",
        "false",
        "１",
        "1_0",
        "1,5",
        "50%",
        "inf",
    ),
    *(
        "{'a': 1}",
        "(a)",
        "[",
        "not x",
        "a|b",
        " a ",
        "a\u200b",
        "12345678901234567890",
        "1.10",
        "-",
    ),
]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    cells=st.lists(st.sampled_from(POOL), min_size=1, max_size=6),
    kind=st.sampled_from([None, None, "classification", "regression", "multilabel"]),
)
def test_a_draft_loads_or_is_refused(cells: list[str], kind: str | None) -> None:
    """Whatever the cells are: a draft that says nothing of missing labels loads."""
    with TemporaryDirectory() as folder:
        path = write_cells(Path(folder) / "a.csv", cells, rows=24)
        files = dict.fromkeys(("train", "validation", "test"), path)
        try:
            draft = draft_task("my/x", files, path.parent, kind=kind)
        except RequestError:
            return
        spec = TaskSpec.from_dict(draft.content, path.parent / "x.yaml")
        if any("have no label" in guess for guess in draft.guesses):
            with pytest.raises(RequestError, match=r"no label|not a finite number"):
                load_data(spec, protocol="official", check_classes=False)
        else:
            load_data(spec, protocol="official", check_classes=False)


def test_objects_as_labels(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"text": f"old cat {n}", "label": {"a": n % 2, "b": 1}} for n in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    draft = draft_task("my/x", {"train": path}, tmp_path, label=["label.a"])  # a field is a column
    assert (draft.content["label_column"], draft.content["labels"]) == ("label.a", ["0", "1"])
    content = {
        "id": "my/x", "data": {"files": {"train": str(path)}}, "kind": "classification",
        "inputs": ["{text}"], "labels": ["a", "b"], "metrics": ["accuracy"],
    }  # fmt: skip
    for kind in ("classification", "regression", "multilabel"):
        keys = {**content, "kind": kind}
        if kind == "regression":
            keys |= {"labels": None, "metrics": ["pearson"]}
        with pytest.raises(RequestError, match=r"line 1 of .*\{'a': 0, 'b': 1\}"):
            load_data(TaskSpec.from_dict(keys), protocol="holdout")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([10**19, 10**19 + 1], r"line 1: .*10000000000000000000, a whole number of more than 64"),
        ([1, 0.5, "a"], r"line 3.*'a' \(str\) where earlier rows hold int"),
    ],
)
def test_what_no_column_of_json_holds(labels: list[Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"text": f"old cat {n}", "label": label} for n, label in enumerate(labels)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(RequestError, match=message):
        draft_task("my/x", {"train": path}, tmp_path)
