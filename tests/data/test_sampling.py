"""Limits that take rows by class, and hold-outs that keep groups together."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from task_bench import file_task, three

from mtl.data import load_data
from mtl.data.sampling import draw, draw_whole, per_class, spread, strata
from mtl.engine.settings import RunSettings
from mtl.errors import RequestError

CLASSES = [f"c{number}" for number in range(20)]
SORTED = [
    {"a": f"text {row} of {name}", "b": "x", "label": name} for name in CLASSES for row in range(30)
]


def sorted_task(folder: Path, **keys: Any) -> Any:
    files = {"train": SORTED, "validation": SORTED[::3], "test": SORTED[::2]}
    return file_task(folder, files, labels=CLASSES, **keys)


def below(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


def classes_of(split: Any) -> dict[int, int]:
    labels, counts = np.unique(split.labels, return_counts=True)
    return dict(zip(labels.tolist(), counts.tolist(), strict=True))


def test_a_draw_has_the_shares_of_the_whole_and_is_nested() -> None:
    rng = np.random.RandomState(0)
    classes = rng.choice(5, size=1000, p=[0.5, 0.3, 0.15, 0.04, 0.01])
    shares = np.bincount(classes) / 1000
    before: set[int] = set()
    for count in (5, 16, 100, 400, 999, 1000, 5000):
        rows = draw(classes, count, seed=3)
        assert len(rows) == min(count, 1000) == len({*rows})
        assert rows.tolist() == sorted(rows)
        assert before <= {*rows}
        before = {*rows}
        found = np.bincount(classes[rows], minlength=5)
        assert found.min() >= 1
        assert np.abs(found - count * shares).max() <= 2 or count >= 1000
    assert draw(classes, 100, 3).tolist() != draw(classes, 100, 4).tolist()
    assert sorted(spread(classes, 1)) == list(range(1000))
    # fewer rows than classes: the largest ones
    assert {*classes[draw(classes, 2, 0)]} == {0, 1}


def test_strata_of_every_kind(tmp_path: Path) -> None:
    spec = sorted_task(tmp_path)
    assert strata(spec, np.array([2, 0])).tolist() == [2, 0]
    sets = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 0, 1], [1, 1, 1]], dtype=np.float32)
    several = replace(spec, kind="multilabel", labels=("x", "y", "z"), metrics=("macro_f1",))
    found = strata(several, sets)
    assert found[2] == 3
    assert found[0] != found[1]
    values = replace(spec, kind="regression", labels=(), metrics=("pearson",))
    tenths = strata(values, np.arange(50)[::-1].astype(np.float32))
    assert np.bincount(tenths).tolist() == [5] * 10
    assert tenths[0] == 9


def test_whole_groups_are_drawn() -> None:
    codes = np.repeat(np.arange(30), 7)
    rows = draw_whole(codes, 50)
    assert len(rows) == 49
    assert {*np.bincount(codes[rows])} <= {0, 7}
    assert len(draw_whole(codes, 3)) == 7


def test_limits_of_a_sorted_file(tmp_path: Path) -> None:
    spec = sorted_task(tmp_path)
    limits = {"max_train_samples": 100, "max_eval_samples": 60}
    first = load_data(spec, protocol="official", **limits)
    assert len(classes_of(first.splits["train"])) == 4
    assert "train: the first 100 rows only" in first.notes
    drawn = load_data(spec, protocol="official", sample="drawn", **limits)
    assert classes_of(drawn.splits["train"]) == dict.fromkeys(range(20), 5)
    assert classes_of(drawn.splits["test"]) == dict.fromkeys(range(20), 3)
    assert drawn.notes == (
        "train: 100 of 600 rows, drawn by label (seed 42)",
        "dev: 60 of 200 rows, drawn by label (seed 42)",
        "test: 60 of 300 rows, drawn by label (seed 42)",
    )
    again = load_data(spec, protocol="official", sample="drawn", **limits)
    assert again.fingerprint == drawn.fingerprint != first.fingerprint
    # nothing is cut, so nothing is drawn
    whole = load_data(spec, protocol="official", sample="drawn", max_train_samples=600)
    assert whole.fingerprint == load_data(spec, protocol="official").fingerprint
    assert (whole.notes, whole.limited, drawn.limited) == ((), False, True)


def test_shots_by_class_and_shots_per_class(tmp_path: Path) -> None:
    spec = sorted_task(tmp_path)
    for number in (0, 1):
        few = load_data(spec, protocol="official", sample="drawn", shots=40, shot_draw=number)
        assert classes_of(few.splits["train"]) == dict.fromkeys(range(20), 2)
        assert f"train: 40 shots, draw {number}, drawn by label" in few.notes
    for sample in ("first", "drawn"):
        each = load_data(spec, protocol="official", sample=sample, shots_per_class=3)
        assert classes_of(each.splits["train"]) == dict.fromkeys(range(20), 3)
        assert each.shots_per_class == 3
        assert "train: 3 shots per class, draw 0" in each.notes
        firsts = each.splits["train"].rows.tolist() == [
            30 * name + row for name in range(20) for row in range(3)
        ]
        assert firsts == (sample == "first")
    assert per_class(np.array([1, 0, 1, 1]), 2, None).tolist() == [0, 1, 2]
    many = load_data(spec, protocol="official", shots_per_class=31)
    assert "train: fewer than 31 rows of 'c0' (30)" in many.notes[1]
    values = file_task(
        below(tmp_path, "value"),
        three([{"a": "x", "b": "y", "label": n} for n in range(9)]),
        kind="regression",
        labels=[],
        metrics=["pearson"],
    )
    with pytest.raises(RequestError, match=r"--shots-per-class 2 is for classification"):
        load_data(values, protocol="official", shots_per_class=2)


def test_settings_that_came_later_leave_hashes_alone() -> None:
    plain = RunSettings().identity()
    assert RunSettings(sample="drawn").identity() == plain
    cut = RunSettings(max_train_samples=5)
    assert not {"sample", "group_by", "shots_per_class"} & {*cut.identity()}
    assert RunSettings(max_train_samples=5, sample="drawn").identity() == {
        **cut.identity(),
        "sample": "drawn",
    }
    with pytest.raises(RequestError, match=r"shots=4 and shots_per_class=2 both choose"):
        RunSettings(shots=4, shots_per_class=2)
    with pytest.raises(RequestError, match=r"sample='best' must be 'first' or 'drawn'"):
        RunSettings(sample="best")
    assert RunSettings(shots_per_class=2, shot_draw=1).shot_draw == 1


def users(count: int = 60) -> list[dict[str, Any]]:
    rng = random.Random(0)
    rows = [
        {"a": f"{user}: {n}", "b": "x", "user": f"u{user}", "label": "yes" if user % 3 else "no"}
        for user in range(count)
        for n in range(rng.randint(1, 6))
    ]
    rng.shuffle(rows)
    return rows


@pytest.mark.parametrize("protocol", ["holdout", "scalearn"])
def test_a_hold_out_keeps_groups_together(tmp_path: Path, protocol: str) -> None:
    rows = users()
    files = {"train": rows}
    if protocol == "scalearn":
        files["validation"] = [{**rows[0], "user": "new"}]
    spec = file_task(tmp_path, files, group_by="user")
    data = load_data(spec, protocol=protocol)
    held = [name for name, split in data.splits.items() if split.source == "train"]
    assert held == (["train", "dev", "test"] if protocol == "holdout" else ["train", "dev"])
    sides = [{rows[row]["user"] for row in data.splits[name].rows} for name in held]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 60
    assert all(len(side) >= 5 for side in sides)
    assert sum(data.sizes[name] for name in held) == len(rows)
    loose = load_data(file_task(below(tmp_path, "loose"), files), protocol=protocol)
    sides = [{rows[row]["user"] for row in loose.splits[name].rows} for name in held]
    assert sides[0] & sides[1]


def test_what_group_by_refuses(tmp_path: Path) -> None:
    spec = file_task(tmp_path, {"train": users()}, group_by="usr")
    with pytest.raises(RequestError, match=r"no column 'usr'.*Did you mean 'user'"):
        load_data(spec, protocol="holdout")
    with pytest.raises(RequestError, match=r"group_by is 'label', the column of the label"):
        file_task(below(tmp_path, "label"), {"train": users()}, group_by="label")
    few = file_task(below(tmp_path, "few"), {"train": users(2)}, group_by="user")
    with pytest.raises(RequestError, match=r"groups of 'user'"):
        load_data(few, protocol="holdout")


def test_a_task_without_group_by_is_the_same_task(tmp_path: Path) -> None:
    assert "group_by" not in file_task(tmp_path, {"train": users()}).to_dict()
    spec = file_task(below(tmp_path, "by"), {"train": users()}, group_by="user")
    assert spec.to_dict()["group_by"] == "user"
    assert type(spec).from_dict(spec.to_dict()) == spec


def test_queries_stay_whole_in_limits_and_shots(tmp_path: Path) -> None:
    rows = [
        {"a": f"passage {n}", "b": f"{m}", "label": "no" if m else "yes", "group": n, "order": m,
         "f1": 0.0, "em": 0.0}
        for n in range(12) for m in range(4)
    ]  # fmt: skip
    spec = file_task(tmp_path, three(rows), kind="candidates", metrics=["token_f1"])
    cut = load_data(spec, protocol="official", sample="drawn", max_train_samples=14)
    assert "train: 12 of 48 rows, whole queries drawn (seed 42)" in cut.notes
    few = load_data(spec, protocol="official", sample="drawn", shots=9, shot_draw=2)
    assert "train: 8 shots in whole queries, draw 2" in few.notes
    for data in (cut, few):
        groups = np.array([rows[row]["group"] for row in data.splits["train"].rows])
        assert set(np.unique(groups, return_counts=True)[1]) == {4}
