"""Our metrics as ``evaluate.Metric`` objects: the same numbers, no network, no files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import pytest

from mtl.errors import RequestError, RunError
from mtl.tasks import METRICS, as_evaluate, standard_error

PLAIN = [name for name in METRICS if METRICS.get(name).grouped is None]
NUMBERS = {"pearson", "spearman"}


def pair(name: str, rows: int = 200) -> tuple[Any, Any]:
    rng = np.random.default_rng(5)
    if name in NUMBERS:
        labels = rng.normal(size=rows)
        return labels, labels + rng.normal(size=rows)
    labels = rng.integers(0, 2, size=rows)
    return labels, np.where(rng.random(rows) < 0.3, 1 - labels, labels)


@pytest.mark.parametrize("name", PLAIN)
def test_the_same_numbers(name: str) -> None:
    labels, predictions = pair(name)
    metric = as_evaluate(name)
    assert isinstance(metric, evaluate.Metric)
    assert metric.name == name
    compute = METRICS.get(name).compute
    assert compute is not None
    value = compute(labels, predictions, np.ones(len(labels)))
    assert metric.compute(predictions=predictions, references=labels) == {name: value}
    error = standard_error(name, predictions, labels)
    assert error > 0
    for predicted, gold in zip(np.split(predictions, 4), np.split(labels, 4), strict=True):
        metric.add_batch(predictions=predicted.tolist(), references=gold.tolist())
    assert metric.compute(stderr=True) == {name: value, f"{name}_stderr": error}


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("side", ["predictions", "references", "both"])
def test_constants_give_0_and_never_nan(name: str, side: str) -> None:
    labels, predictions = pair(name)
    constant = np.full(len(labels), 2.5) if name in NUMBERS else np.zeros(len(labels), dtype=int)
    given = {"predictions": predictions, "references": labels}
    given = {key: constant if side in {key, "both"} else value for key, value in given.items()}
    found = as_evaluate(name).compute(**given, stderr=True)
    assert all(np.isfinite(list(found.values())))
    if name in {"accuracy", "macro_f1"}:  # these are defined: the share that is right
        assert 0 <= found[name] <= 1
    else:
        assert found[name] == 0.0
        assert found[f"{name}_stderr"] == 0.0


def test_rows_of_labels() -> None:
    labels = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 0], [0, 1, 1]])
    predictions = np.array([[1, 0, 0], [0, 0, 0], [1, 1, 0], [1, 1, 1]])
    found = as_evaluate("macro_f1").compute(predictions=predictions, references=labels)
    # per label: 2·2/(2·2+1), 1, 2·1/(2·1+1)
    assert found["macro_f1"] == pytest.approx((4 / 5 + 1 + 2 / 3) / 3)
    found = as_evaluate("accuracy").compute(predictions=predictions, references=labels)
    assert found == {"accuracy": 0.5}


def test_metrics_over_groups_take_the_columns_they_need() -> None:
    found = as_evaluate("question_em").compute(
        predictions=[1, 0, 1, 1], references=[1, 0, 1, 0], group=[0, 0, 1, 1], stderr=True
    )
    assert found == {"question_em": 0.5, "question_em_stderr": pytest.approx(0.5)}


@pytest.mark.parametrize("name", [name for name in METRICS if name not in PLAIN])
@pytest.mark.parametrize("constant", [0, 1])
def test_constants_over_groups(name: str, constant: int) -> None:
    """Nothing chosen, or everything: a number from 0 to 1."""
    columns = {"group": [0, 0, 1, 1], "f1": [0.5, 1.0, 0.0, 1.0], "em": [0.0, 1.0, 0.0, 1.0]}
    needed = next(iter(METRICS.get(name).needs.values()))
    found = as_evaluate(name).compute(
        predictions=[constant] * 4,
        references=[0, 1, 0, 1],
        stderr=True,
        **{column: columns[column] for column in needed},
    )
    assert all(np.isfinite(list(found.values())))
    if constant == 0:
        assert found == {name: 0.0, f"{name}_stderr": 0.0}


def test_several_at_once() -> None:
    labels, predictions = pair("f1")
    both = evaluate.combine([as_evaluate("f1"), as_evaluate("matthews")])
    assert set(both.compute(predictions=predictions, references=labels)) == {"f1", "matthews"}


def test_what_cannot_be_scored() -> None:
    with pytest.raises(RequestError, match=r"'acuracy'.*'accuracy'"):
        as_evaluate("acuracy")
    with pytest.raises(RunError, match="2 of 3 predictions are NaN"):
        as_evaluate("pearson").compute(
            predictions=[1.0, float("nan"), float("inf")], references=[1.0, 2.0, 3.0]
        )


def test_no_network_and_no_file(tmp_path: Path) -> None:
    """In a process whose connections fail and whose home is an empty folder that stays empty."""
    code = (
        "import socket\n"
        "def refuse(*_, **__): raise AssertionError('a connection')\n"
        "socket.socket.connect = socket.create_connection = refuse\n"
        "from mtl.tasks import METRICS, as_evaluate\n"
        "for name in METRICS: as_evaluate(name)\n"
        "print(as_evaluate('accuracy').compute(predictions=[0, 1], references=[0, 0]))\n"
    )
    home = tmp_path / "home"
    home.mkdir()
    places = {"HOME": str(home), "HF_HOME": str(home / "hf"), "TMPDIR": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        env={**os.environ, **places, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "{'accuracy': 0.5}"
    assert not [path for path in home.rglob("*") if path.is_file()]


def test_without_the_package_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from mtl.tasks import as_metric

    as_metric._scored.cache_clear()
    monkeypatch.setitem(sys.modules, "evaluate", None)  # as if it were not installed
    with pytest.raises(RequestError, match="not installed: pip install evaluate"):
        as_evaluate("accuracy")
    monkeypatch.undo()
    assert as_evaluate("accuracy").compute(predictions=[1], references=[1]) == {"accuracy": 1.0}
