"""Metrics that are undefined, or that a degenerate sample makes look certain."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mtl.errors import RequestError
from mtl.tasks.caveats import caveat, is_undefined, summarise, without_certainty

BOTH = np.array([0, 1, 0, 1, 1, 0])
ONES, ZEROS = np.ones(6, np.int64), np.zeros(6, np.int64)
RISING, FLAT = np.arange(6.0), np.full(6, 2.5)
NEAR = FLAT + np.array([0, 1, 0, 1, 0, 1]) * np.finfo(np.float64).eps
SETS = np.array([[1, 0], [0, 1], [1, 1], [0, 0], [1, 0], [0, 1]])


@pytest.mark.parametrize(
    ("metric", "predictions", "labels", "expected"),
    [
        ("accuracy", BOTH, BOTH, None),
        ("accuracy", ONES, BOTH, None),  # a constant answer is wrong, and known to be
        ("accuracy", BOTH, ONES, "all labels are 'yes'"),
        ("accuracy", SETS, SETS, None),
        ("accuracy", SETS, SETS[[0] * 6], "all labels are the same set"),
        ("question_em", BOTH, ZEROS, "all labels are 'no'"),
        ("f1", ZEROS, BOTH, None),
        ("f1", BOTH, ZEROS, "undefined: no label is 'yes'"),
        ("f1", BOTH, ONES, "all labels are 'yes'"),
        ("macro_f1", ZEROS, BOTH, None),
        ("macro_f1", ZEROS, ZEROS, "no row of the class 'yes'"),
        ("macro_f1", SETS, SETS, None),
        ("macro_f1", SETS, SETS * [1, 0], "no row of the class 'yes'"),
        ("matthews", BOTH, BOTH, None),
        ("matthews", ONES, BOTH, "undefined: all predictions are 'yes'"),
        ("matthews", BOTH, ZEROS, "undefined: all labels are 'no'"),
        ("pearson", RISING, RISING, None),
        ("pearson", FLAT, RISING, "undefined: all predictions are 2.5"),
        ("pearson", NEAR, RISING, "undefined: all predictions are 2.5"),
        ("spearman", RISING, FLAT, "undefined: all labels are 2.5"),
        ("spearman", RISING[:2], RISING[:2], "2 examples: fewer than three"),
        ("accuracy", BOTH[:0], BOTH[:0], "there are no examples"),
    ],
)
def test_what_is_undefined_or_degenerate(
    metric: str, predictions: np.ndarray, labels: np.ndarray, expected: str | None
) -> None:
    found = caveat(metric, predictions, labels, names=("no", "yes"), outputs=2)
    assert (found is None) == (expected is None), found
    if expected is not None and found is not None:
        assert found.startswith(expected)


def test_many_missing_classes_are_counted() -> None:
    found = caveat("macro_f1", BOTH, BOTH, outputs=8)
    assert found == "no row of the class 2, 3, 4 and 3 more"
    assert caveat("macro_f1", BOTH, BOTH) is None  # choices are no classes
    with pytest.raises(RequestError, match="macro_f1"):
        caveat("macro_f", BOTH, BOTH)


def summary(metric: str, predictions: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    from mtl.tasks import METRICS

    compute = METRICS.get(metric).compute
    assert compute is not None
    value = compute(labels, predictions, np.ones(len(labels)))
    return summarise(metric, value, predictions, labels, names=("no", "yes"), outputs=2)


def test_no_minority_row_in_test_is_no_certain_macro_f1() -> None:
    found = summary("macro_f1", ZEROS, ZEROS)
    assert (found["value"], found["stderr"], found["n"]) == (1.0, None, 6)
    assert found["caveat"] == "no row of the class 'yes'"
    assert not is_undefined(found)


def test_a_constant_pearson_is_undefined() -> None:
    found = summary("pearson", FLAT, RISING)
    assert (found["value"], found["stderr"]) == (0.0, None)
    assert is_undefined(found)


def test_all_right_is_no_standard_error_of_0() -> None:
    found = summary("accuracy", BOTH, BOTH)
    assert (found["value"], found["stderr"]) == (1.0, None)
    assert found["caveat"] == "all 6 examples count alike: no standard error"
    one = summary("accuracy", BOTH[:1], BOTH[:1])
    assert (one["stderr"], one["n"]) == (None, 1)
    assert one["caveat"] == "all labels are 'no'"
    fine = summary("accuracy", ZEROS, BOTH)
    assert fine["caveat"] is None
    assert fine["stderr"] == pytest.approx((0.25 / 6) ** 0.5)


def test_a_stored_standard_error_of_0_is_taken_back() -> None:
    old = {"value": 1.0, "stderr": 0.0, "n": 50}
    assert without_certainty(old) == {
        "value": 1.0,
        "stderr": None,
        "n": 50,
        "caveat": "all 50 examples count alike: no standard error",
    }
    kept = {"value": 0.5, "stderr": 0.1, "n": 50}
    assert without_certainty(kept) == kept
    assert without_certainty({"value": None, "stderr": None, "n": None})["stderr"] is None
