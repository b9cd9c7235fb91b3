"""Label columns: what is a label, and where the one that is none stands."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mtl.errors import RequestError
from mtl.tasks.label_columns import LabelColumn
from mtl.tasks.label_sets import read_label_sets
from mtl.tasks.labels import read_class_labels, read_numbers

NAMES = ("entailment", "neutral", "contradiction")


def column(values: Any, names: tuple[str, ...] | None = None, kind: Any = None) -> LabelColumn:
    array = (
        values
        if isinstance(values, pa.ChunkedArray)
        else pa.chunked_array([pa.array(values, kind)])
    )
    return LabelColumn(array, names, "Task 'own/pair', split 'train'", lambda row: f"row {row}")


@pytest.mark.parametrize(
    ("values", "labels", "ids"),
    [
        (["neutral", "entailment", "neutral"], NAMES, [1, 0, 1]),
        ([" neutral ", "contradiction"], NAMES, [1, 2]),
        ([2, 0], NAMES, [2, 0]),
        ([2.0, 0.0], NAMES, [2, 0]),
        (["2", "0"], NAMES, [2, 0]),
        ([3, 1, 2], ("1", "2", "3"), [2, 0, 1]),
        (["3", "1"], ("1", "2", "3"), [2, 0]),
        ([-1, 1], ("-1", "1"), [0, 1]),
        ([True, False], ("no", "yes"), [1, 0]),
        ([True, False], ("true", "false"), [0, 1]),
        (["no", "yes"], ("no", "yes"), [0, 1]),
    ],
)
def test_class_labels(values: Any, labels: tuple[str, ...], ids: list[int]) -> None:
    found = read_class_labels(column(values), labels)
    assert found.dtype == np.int64
    assert found.tolist() == ids


def test_names_that_the_data_declare_decide() -> None:
    declared = ("neutral", "contradiction", "entailment")
    assert read_class_labels(column([0, 1, 2], declared), NAMES).tolist() == [1, 2, 0]
    with pytest.raises(RequestError, match=r"names its classes yes, no, but.*labels are entail"):
        read_class_labels(column([0], ("yes", "no")), NAMES)


def test_dictionaries_and_chunks() -> None:
    chunks = pa.chunked_array([["neutral"], ["entailment", "neutral"]])
    assert read_class_labels(column(chunks), NAMES).tolist() == [1, 0, 1]
    coded = pa.chunked_array([pa.array(["neutral", "entailment"]).dictionary_encode()])
    assert read_class_labels(column(coded), NAMES).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("values", "labels", "message"),
    [
        (["neutral", "nuetral"], NAMES, r"row 1: 'nuetral' is none of the labels \(entailment"),
        ([0, 1, 3], NAMES, r"row 2: 3 is none of the labels: 0 to 2 stand for entailment"),
        ([0, -1], NAMES, r"row 1: the label is -1, which marks hidden labels"),
        ([0, None, None], NAMES, r"row 1: there is no label \(2 such rows\)"),
        (["neutral", None], NAMES, r"row 1: there is no label"),
        ([0.0, 1.5], NAMES, r"row 1: 1.5 is none of the labels"),
        ([0.0, float("nan")], NAMES, r"row 1: there is no label: the cell is nan \(1"),
        ([True, False], NAMES, r"row 0: True is no label"),
        ([[0], [1]], NAMES, r"row 0: a list of labels"),
        ([4, 1], ("1", "2", "3"), r"row 0: 4 is none of the labels \(1, 2, 3\)"),
        (["", "neutral"], NAMES, r"row 0: there is no label: the cell is ''"),
    ],
)
def test_what_is_no_class_label(values: Any, labels: tuple[str, ...], message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        read_class_labels(column(values), labels)
    assert str(caught.value).startswith("Task 'own/pair', split 'train', row")


@pytest.mark.parametrize(
    "values", [[0.5, 3.0], [1, 5], ["0.5", "1e2"], pa.chunked_array([["0.5"], ["5"]])]
)
def test_numbers(values: Any) -> None:
    found = read_numbers(column(values))
    expected = values.to_pylist() if isinstance(values, pa.ChunkedArray) else values
    assert found.dtype == np.float32
    assert found.tolist() == [float(value) for value in expected]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.5, float("nan"), float("nan")], r"row 1: the label is nan.*2 such rows"),
        ([float("inf")], r"row 0: the label is inf"),
        (["1", "good"], r"row 1: the label 'good' is no number"),
        (["1", "nan"], r"row 1: the label is nan"),
        ([0.5, None], r"row 1: there is no label"),
        ([[1.0]], r"row 0: the label \[1.0\] is no number"),
        ([True], r"row 0: the label True is no number"),
    ],
)
def test_what_is_no_number(values: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        read_numbers(column(values))


def test_label_sets() -> None:
    found = read_label_sets(column([["neutral", "entailment"], [], ["neutral"]]), NAMES)
    assert found.dtype == np.float32
    assert found.tolist() == [[1, 1, 0], [0, 0, 0], [0, 1, 0]]
    assert read_label_sets(column([[2], [0]]), NAMES).tolist() == [[0, 0, 1], [1, 0, 0]]
    with pytest.raises(RequestError, match="row 1: 'x' is none of the labels"):
        read_label_sets(column([[], ["x"]]), NAMES)
    with pytest.raises(RequestError, match="row 0: 'x' where a list of labels is expected"):
        read_label_sets(column(["x"]), NAMES)
    with pytest.raises(RequestError, match="row 0: a label is missing"):
        read_label_sets(column([[None]], kind=pa.list_(pa.string())), NAMES)
