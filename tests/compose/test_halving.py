"""Which precision scores take: what counts as equal, where the question is asked, what is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_features import task

from mtl.compose import halving
from mtl.compose.features import VERSION, Extractor, subset
from mtl.compose.halving import WORTH, compared, in_precision, pays, self_test
from mtl.compose.suggest import Suggestion
from mtl.engine import open_device
from mtl.errors import RequestError
from mtl.files import sha256_json
from mtl.graph.scores import SCORES
from mtl.runs import open_workspace


@pytest.fixture
def extractor(backbone: Any, tmp_path: Path) -> Extractor:
    return Extractor(backbone, open_workspace(zoo=tmp_path / "zoo"), open_device("fp32"))


def found(base: float = 0.0, **values: float) -> Suggestion:
    by_task = {name: {"logme": value} for name, value in values.items()}
    return Suggestion("t", 64, by_task, {}, {"logme": base}, {}, {})


@pytest.mark.parametrize(
    ("half", "moved", "reason"),
    [
        (found(a=1.0, b=0.5), 0.0, ""),
        (found(a=1.0, b=0.481), 0.019, ""),
        (found(a=1.0, b=0.479), 0.021, "logme moved by 2.1% of its spread"),
        (found(-0.03, a=1.0, b=0.5), 0.03, "logme moved by 3.0% of its spread"),
        (found(a=1.0), None, "logme judges other sources"),
        (found(a=1.0, b=0.5, c=0.1), None, "logme judges other sources"),
    ],
)
def test_equal_is_a_50th_of_the_spread(half: Suggestion, moved: float | None, reason: str) -> None:
    said = compared(found(a=1.0, b=0.5), half, "dev")
    assert said.moved == (None if moved is None else pytest.approx(moved))
    assert (said.reason, said.equal) == (reason, not reason)
    assert ("bf16:" in said.text()) is said.equal
    assert reason in said.text()


def test_equal_is_the_same_source_first() -> None:
    near = compared(found(a=1.0, b=0.99), found(a=0.99, b=1.0), "dev")
    assert (near.equal, near.reason) == (False, "another source is first by logme")
    lower = compared(found(2.0, a=0.5, b=0.49, c=1.0), found(2.0, a=0.49, b=0.5, c=1.0), "dev")
    assert lower.equal  # places below the first are as near as the tolerance


def test_without_spread_nothing_may_move() -> None:
    assert compared(found(1.0, a=1.0), found(1.0, a=1.0), "dev").equal
    said = compared(found(1.0, a=1.0), found(1.0, a=1.1), "dev")
    assert (said.equal, said.moved) == (False, None)
    assert not compared(Suggestion("t", 64, {}, {}, {}, {}, {}), found(), "dev").equal


def test_where_it_can_pay(extractor: Extractor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(halving, "cpu_has_bf16", lambda: True)
    logme, words, own = (SCORES.get(name) for name in ("logme", "tfidf", "weights"))
    assert pays([logme], extractor, WORTH)
    assert pays([words, logme], extractor, WORTH)
    assert all(pays([SCORES.get(n)], extractor, WORTH) for n in ("textemb", "esm", "taskemb"))
    assert not pays([words, own], extractor, WORTH)  # nothing goes through the encoder
    assert not pays([logme], extractor, WORTH - 1)
    assert not pays([logme], replace(extractor, limit=WORTH - 1), 10_000)
    monkeypatch.setattr(halving, "cpu_has_bf16", lambda: False)
    assert not pays([logme], extractor, WORTH)


def test_dev_rows_are_tried_in_both_precisions(extractor: Extractor) -> None:
    data = task([0, 1] * 50)
    dev = task([1, 0] * 40).splits["train"]
    marks = {**data.fingerprints, "dev": "of dev"}
    data = replace(data, splits={**data.splits, "dev": dev}, fingerprints=marks)
    seen: list[Any] = []

    def look(few: Any, passes: Extractor) -> Suggestion:
        seen.append((passes.device.precision, passes.limit, few.fingerprints["train"]))
        return found(a=1.0)

    assert self_test(data, look, extractor).equal
    assert seen == [("fp32", 64, "of dev"), ("bf16", 64, "of dev")]
    few = replace(
        data, splits={"train": data.splits["train"], "dev": subset(data, 63).splits["train"]}
    )
    assert self_test(few, look, extractor).split == "train"  # too few rows of dev
    assert seen[-1][2] == data.fingerprints["train"]

    def refuse(few: Any, passes: Extractor) -> Suggestion:
        raise RequestError("its 64 training rows have one class only.")

    said = self_test(data, refuse, extractor)
    assert not said.equal
    assert "one class" in said.text()


def test_features_of_two_precisions_are_kept_apart(extractor: Extractor) -> None:
    few = subset(task([0, 1, 0, 1, 1]))
    exact = extractor.base_vectors(few)
    (path,) = (extractor.workspace.cache.parent / "features").rglob("*.safetensors")
    base = extractor.backbone.base
    key = {
        "what": "base",
        "rows": few.fingerprints["train"],
        "length": few.spec.max_length,
        "version": VERSION,
        "limit": extractor.limit,
        "base": base.fingerprint,
        "tokenizer": base.tokenizer,
    }
    assert path.stem == sha256_json(key)  # as it was before there was another precision
    half = in_precision(extractor, "bf16").base_vectors(few)
    assert half["first"].dtype == np.float32
    assert not np.array_equal(half["first"], exact["first"])
    np.testing.assert_allclose(half["first"], exact["first"], atol=0.05)
    paths = list((extractor.workspace.cache.parent / "features").rglob("*.safetensors"))
    assert {p.stem for p in paths} == {sha256_json(key), sha256_json({**key, "precision": "bf16"})}
    np.testing.assert_array_equal(extractor.base_vectors(few)["first"], exact["first"])


def test_the_fisher_has_a_precision_too(extractor: Extractor) -> None:
    few = subset(task([0, 1, 0, 1, 1]))
    exact, half = extractor.fisher(few), in_precision(extractor, "bf16").fisher(few)
    for layer, value in exact.items():
        assert not np.array_equal(half[layer], value)
        np.testing.assert_allclose(half[layer].sum(), value.sum(), rtol=0.1)
