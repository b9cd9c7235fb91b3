"""Folds of training and dev rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mtl.data import load_data
from mtl.data.folds import can_fold, folds
from mtl.tasks import load_task


@pytest.fixture(scope="module")
def data() -> Any:
    return load_data(load_task("demo/entail"), max_train_samples=50, max_eval_samples=25)


def rows(split: Any) -> list[tuple[Any, ...]]:
    return sorted(zip(*split.texts, split.labels.tolist(), strict=True))


def test_every_row_is_held_out_once_and_trained_on_in_the_others(data: Any) -> None:
    parts = folds(data, 3)
    whole = sorted(rows(data.splits["train"]) + rows(data.splits["dev"]))
    assert sorted(row for part in parts for row in rows(part.splits["dev"])) == whole
    for part in parts:
        assert set(part.splits) == {"train", "dev"}  # no test row
        assert sorted(rows(part.splits["train"]) + rows(part.splits["dev"])) == whole
        assert part.sizes == {name: len(split) for name, split in part.splits.items()}
    assert len({part.fingerprint for part in parts}) == 3
    assert [part.fingerprint for part in parts] == [p.fingerprint for p in folds(data, 3)]


def test_folds_have_the_classes_in_their_shares(data: Any) -> None:
    whole = np.concatenate([data.splits[name].labels for name in ("train", "dev")])
    for part in folds(data, 3):
        share = part.splits["dev"].labels.mean()
        assert share == pytest.approx(whole.mean(), abs=0.05)


def test_rows_that_stay_together_are_not_divided(data: Any) -> None:
    from dataclasses import replace

    grouped = replace(data, spec=replace(data.spec, group_by="premise"))
    assert can_fold(data)
    assert not can_fold(grouped)
    with pytest.raises(ValueError, match="one by one"):
        folds(grouped, 3)
