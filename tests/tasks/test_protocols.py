"""Split protocols against the reference's own splits, and on data they cannot split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from task_bench import spec_of

from mtl.errors import RequestError
from mtl.tasks import PROTOCOLS, default_protocol, load_task

GOLDEN = Path(__file__).parents[1] / "golden"
SCALEARN = load_file(GOLDEN / "case07a_scalearn_splits.safetensors")
SORA = load_file(GOLDEN / "case07b_sora_splits.safetensors")


@pytest.mark.parametrize("case", sorted({name.split(".")[0] for name in SCALEARN}))
def test_scalearn_holds_out_the_rows_of_the_reference(case: str) -> None:
    labels = SCALEARN[f"{case}.labels"].astype(np.int64)
    spec = spec_of(
        labels=tuple(f"c{i}" for i in range(max(2, int(labels.max()) + 1))),
        stratify=case.startswith("stratified"),
    )
    parts = PROTOCOLS.get("scalearn")(spec, ["train", "validation"], lambda split: labels)
    assert parts["train"].rows is not None
    assert parts["dev"].rows is not None
    np.testing.assert_array_equal(parts["train"].rows, SCALEARN[f"{case}.train_ids"])
    np.testing.assert_array_equal(parts["dev"].rows, SCALEARN[f"{case}.dev_ids"])
    assert (parts["train"].source, parts["dev"].source) == ("train", "train")
    assert (parts["test"].source, parts["test"].rows) == ("validation", None)


@pytest.mark.parametrize("task", ["rte", "cola", "sst2", "qnli"])
def test_sora_takes_the_rows_of_the_reference(task: str) -> None:
    sizes = dict(zip(("train", "validation"), SORA[f"{task}.sizes"].tolist(), strict=True))
    parts = PROTOCOLS.get("sora")(
        load_task(f"glue/{task}"),
        ["train", "validation"],
        lambda split: np.zeros(sizes[split], dtype=np.int64),
    )
    large = task in {"sst2", "qnli"}
    assert [parts[name].source for name in ("train", "dev", "test")] == (
        ["train", "train", "validation"] if large else ["train", "validation", "validation"]
    )
    for name, key in (("train", "train"), ("dev", "validation"), ("test", "test")):
        part = parts[name]
        rows = np.arange(sizes[part.source]) if part.rows is None else part.rows
        np.testing.assert_array_equal(rows, SORA[f"{task}.{key}_ids"])


def test_sora_halves_both_tests_of_mnli() -> None:
    sizes = {"train": 50, "validation_matched": 9, "validation_mismatched": 11}
    parts = PROTOCOLS.get("sora")(
        load_task("glue/mnli"), list(sizes), lambda split: np.zeros(sizes[split], dtype=np.int64)
    )
    dev, test, other = parts["dev"].rows, parts["test"].rows, parts["test_mismatched"].rows
    assert dev is not None
    assert test is not None
    assert other is not None
    assert sorted([*dev, *test]) == list(range(9))
    assert (len(dev), len(test), len(other)) == (4, 5, 6)
    assert parts["test_mismatched"].source == "validation_mismatched"


def test_sora_refuses_tasks_it_has_no_rule_for() -> None:
    def labels(split: str) -> np.ndarray:
        return np.zeros(1000, dtype=np.int64)

    with pytest.raises(RequestError, match=r"own/pair.*sora is defined for cola.*--protocol"):
        PROTOCOLS.get("sora")(spec_of(), ["train", "validation"], labels)
    with pytest.raises(RequestError, match=r"1,000 training rows.*only 1000"):
        PROTOCOLS.get("sora")(load_task("qqp"), ["train", "validation"], labels)


def test_official_takes_splits_as_they_are_and_never_tests_on_dev_rows() -> None:
    def labels(split: str) -> np.ndarray:
        raise AssertionError("no labels are needed")

    parts = PROTOCOLS.get("official")(spec_of(), ["train", "dev", "test"], labels)
    assert {name: (part.source, part.rows) for name, part in parts.items()} == {
        "train": ("train", None),
        "dev": ("dev", None),
        "test": ("test", None),
    }
    with pytest.raises(RequestError, match=r"none of the splits test; they have train, dev"):
        PROTOCOLS.get("official")(spec_of(), ["train", "dev"], labels)


def test_too_few_rows_of_a_class_to_hold_out() -> None:
    labels = np.array([0] * 30 + [1], dtype=np.int64)
    with pytest.raises(RequestError, match=r"own/pair.*per class: \[30, 1\].*stratify: false"):
        PROTOCOLS.get("scalearn")(spec_of(), ["train", "validation"], lambda split: labels)
    with pytest.raises(RequestError, match=r"own/pair.*1 training rows"):
        PROTOCOLS.get("scalearn")(
            spec_of(stratify=False), ["train", "validation"], lambda split: labels[:1]
        )


def test_holdout_makes_what_is_missing() -> None:
    labels = np.arange(200) % 2
    divide = PROTOCOLS.get("holdout")
    parts = divide(spec_of(), ["train"], lambda split: labels)
    assert list(parts) == ["train", "dev", "test"]
    rows = {name: part.rows.tolist() for name, part in parts.items()}
    assert {name: len(found) for name, found in rows.items()} == {
        "train": 162,
        "dev": 18,
        "test": 20,
    }
    assert sorted(row for found in rows.values() for row in found) == list(range(200))
    assert labels[rows["test"]].sum() == 10  # by class
    again = divide(spec_of(), ["train"], lambda split: labels)
    assert again["test"].rows.tolist() == rows["test"]
    parts = divide(spec_of(), ["train", "test"], lambda split: labels)
    assert (parts["test"].source, parts["test"].rows) == ("test", None)
    assert (len(parts["train"].rows), len(parts["dev"].rows)) == (180, 20)
    parts = divide(spec_of(), ["train", "dev"], lambda split: labels)
    assert (parts["dev"].source, parts["dev"].rows) == ("dev", None)
    assert (len(parts["train"].rows), len(parts["test"].rows)) == (180, 20)


def test_default_protocol() -> None:
    assert default_protocol(load_task("demo/nli")) == "official"
    assert default_protocol(load_task("glue/wnli")) == "scalearn"
    whole = {"train": "a.csv", "dev": "b.csv", "test": "c.csv"}
    assert default_protocol(spec_of(data={"files": whole})) == "official"
    assert default_protocol(spec_of(data={"files": {"train": "a.csv"}})) == "holdout"
    assert default_protocol(spec_of(data={"files": {"train": "a.csv", "test": "b.csv"}})) == (
        "holdout"
    )
    assert default_protocol(spec_of(data={"files": {"train": "a.csv", "dev": "b.csv"}})) == (
        "scalearn"
    )


def spread(*counts: int) -> np.ndarray:
    """Labels with so many rows of each class, in an order of their own."""
    labels = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(1).permutation(labels)


def parts_of(protocol: str, labels: np.ndarray, *splits: str) -> dict[str, np.ndarray]:
    spec = spec_of(labels=tuple(f"c{i}" for i in range(max(2, int(labels.max()) + 1))))
    found = PROTOCOLS.get(protocol)(spec, ["train", *splits], lambda split: labels)
    return {name: part.rows for name, part in found.items() if part.rows is not None}


@pytest.mark.parametrize("counts", [(60, 40), (200, 30, 25), (50, 50, 20)])
def test_holdout_draws_as_it_always_did_where_every_class_was_there(
    counts: tuple[int, ...],
) -> None:
    labels = spread(*counts)
    for splits in ((), ("test",), ("validation",)):
        before, now = (parts_of(name, labels, *splits) for name in ("holdout-1", "holdout"))
        assert before.keys() == now.keys()
        for name, rows in before.items():
            np.testing.assert_array_equal(rows, now[name])


@pytest.mark.parametrize(
    ("counts", "there"), [((97, 3), "train dev test"), ((98, 2), "train test")]
)
def test_holdout_keeps_a_row_of_every_class(counts: tuple[int, ...], there: str) -> None:
    labels = spread(*counts)
    before, now = (
        parts_of("holdout-1", labels) if counts[1] > 2 else {},
        parts_of("holdout", labels),
    )
    if before:  # what a user got: no row of the class to be tested on
        assert not all((labels[rows] == 1).any() for rows in before.values())
    assert [name for name in ("train", "dev", "test") if (labels[now[name]] == 1).any()] == (
        there.split()
    )
    whole = np.concatenate(list(now.values()))
    np.testing.assert_array_equal(np.sort(whole), np.arange(100))  # each row once
    assert 10 <= len(now["test"]) <= 11


def test_a_class_of_one_row_is_trained_on() -> None:
    labels = spread(97, 1, 2)
    now = parts_of("holdout", labels)
    assert {name: sorted(set(labels[rows].tolist())) for name, rows in now.items()} == {
        "train": [0, 1, 2],
        "test": [0, 2],
        "dev": [0],
    }
    with pytest.raises(RequestError, match="cannot be held out"):
        parts_of("holdout", np.arange(4))
