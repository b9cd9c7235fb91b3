"""Metrics over questions, queries and spans by hand; normalisation; decoding of candidates."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from task_bench import spec_of

from mtl.errors import RequestError, RunError
from mtl.tasks import decode, examples, score, standard_error, task_loss
from mtl.tasks.answer_metrics import best, exact_match, normalise, token_f1


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Old House.", "old house"),
        ("an  apple\tand a stone", "apple and stone"),
        ("U.S.A.", "usa"),
        ("theatre, another", "theatre another"),
        ("a-b 'the'", "ab"),
        ("“The” Beatles", "“ ” beatles"),  # only ASCII punctuation goes, articles go everywhere
        ("A. An! The?", ""),
    ],
)
def test_normalisation(text: str, normal: str) -> None:
    assert normalise(text) == normal


def test_token_f1_and_exact_match_by_hand() -> None:
    # 2 words in common of 3 and 4: 2 · 2 / 7
    assert token_f1("red old door", "the red door today") == pytest.approx(4 / 7)
    assert token_f1("door door", "door") == pytest.approx(2 / 3)  # as multisets
    assert token_f1("door", "river") == token_f1("", "river") == token_f1("", "") == 0.0
    assert exact_match("old door", "old door") == 1.0
    assert exact_match("old door", "door old") == 0.0
    assert best(token_f1, "door", ["river", "red door", "old red door"]) == pytest.approx(2 / 3)


def multirc() -> Any:
    return spec_of(metrics=("f1", "question_em"))


def test_multirc_by_hand() -> None:
    # Three questions; their answers stand in any order.
    table = {"group": np.array([0, 0, 1, 1, 1, 2, 0])}
    labels = np.array([1, 0, 1, 0, 0, 1, 1])
    predicted = np.array([1, 0, 1, 1, 0, 0, 1])
    # F1 over all answers: tp 3 (rows 0, 2, 6), fp 1, fn 1. Only question 0 is all right.
    found = score(multirc(), predicted, labels, table)
    assert found == {"f1": pytest.approx(6 / 8), "question_em": pytest.approx(1 / 3)}
    assert examples("question_em", predicted, labels, table) == 3
    assert examples("f1", predicted, labels, table) == 7
    error = standard_error("question_em", predicted, labels, table)
    assert error == pytest.approx(np.std([1, 0, 0], ddof=1) / math.sqrt(3))


def test_cb_by_hand() -> None:
    spec = spec_of(labels=("e", "c", "n"), metrics=("accuracy", "macro_f1"))
    labels = np.array([0, 0, 0, 1, 1, 2])
    predicted = np.array([0, 0, 1, 1, 0, 0])
    # e: tp 2, fp 2, fn 1 → 4/7; c: tp 1, fp 1, fn 1 → 1/2; n: 0
    assert score(spec, predicted, labels) == {
        "accuracy": pytest.approx(3 / 6),
        "macro_f1": pytest.approx((4 / 7 + 1 / 2 + 0) / 3),
    }


RECORD = {
    "group": np.array([0, 0, 0, 1, 1]),
    "order": np.array([1, 0, 2, 0, 1]),
    "f1": np.array([0.5, 0.0, 1.0, 0.25, 0.0]),
    "em": np.array([0.0, 0.0, 1.0, 0.0, 0.0]),
}
CANDIDATES = {
    "kind": "candidates",
    "labels": ("wrong", "right"),
    "metrics": ("token_f1", "exact_match"),
}


def test_record_by_hand() -> None:
    spec = spec_of(**CANDIDATES)
    logits = np.array([[0, 2.0], [9, 1.0], [-9, 1.9], [0, -3.0], [0, -3.5]], dtype=np.float32)
    chosen = decode(spec, logits, RECORD)  # the largest class-1 logit, whatever class 0 says
    assert chosen.tolist() == [1, 0, 0, 1, 0]
    labels = np.array([0, 0, 1, 0, 0])
    assert score(spec, chosen, labels, RECORD) == {"token_f1": 0.375, "exact_match": 0.0}
    assert examples("token_f1", chosen, labels, RECORD) == 2
    error = standard_error("token_f1", chosen, labels, RECORD)
    assert error == pytest.approx(np.std([0.5, 0.25], ddof=1) / math.sqrt(2))
    loss = task_loss(spec, torch.tensor(logits), torch.tensor(labels))
    expected = torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(labels))
    assert loss.item() == pytest.approx(expected.item())


def test_equal_candidates_go_to_the_one_of_largest_order() -> None:
    spec = spec_of(**CANDIDATES)
    chosen = decode(spec, np.zeros((5, 2), dtype=np.float32), RECORD)
    assert chosen.tolist() == [0, 0, 1, 0, 1]
    # Groups may be mixed.
    mixed = np.array([3, 0, 4, 1, 2])
    table = {name: values[mixed] for name, values in RECORD.items()}
    again = decode(spec, np.zeros((5, 2), dtype=np.float32), table)
    assert again.tolist() == chosen[mixed].tolist()


SPANS = {
    "kind": "span_extraction",
    "inputs": ("{q}", "{c}"),
    "labels": (),
    "metrics": ("token_f1", "exact_match"),
}


def test_squad_by_hand() -> None:
    table = {
        "context": ["the cat sees the Old house.", "no dog likes a red apple"],
        "answers": [["Old house", "house"], ["dog", "red apple today"]],
    }
    predicted = np.array([[13, 27], [13, 24]])  # "the Old house." and "a red apple"
    gold = np.array([[17, 26], [3, 6]])
    found = score(spec_of(**SPANS), predicted, gold, table)
    assert found == {"token_f1": pytest.approx((1 + 4 / 5) / 2), "exact_match": 0.5}
    assert examples("exact_match", predicted, gold, table) == 2


def test_constant_predictions_score_a_number() -> None:
    group = {"group": np.array([0, 0, 1, 1])}
    labels = np.array([1, 0, 1, 1])
    for constant in (0, 1):
        predicted = np.full(4, constant)
        found = score(multirc(), predicted, labels, group)
        assert all(math.isfinite(value) for value in found.values())
        assert math.isfinite(standard_error("question_em", predicted, labels, group))
    assert score(multirc(), np.zeros(4, dtype=int), labels, group) == {"f1": 0, "question_em": 0}
    assert standard_error("question_em", np.ones(1), np.ones(1), {"group": np.zeros(1)}) == 0.0
    table = {"context": ["a b"], "answers": [["b"]]}
    empty = score(spec_of(**SPANS), np.zeros((1, 2), dtype=int), np.array([[2, 3]]), table)
    assert empty == {"token_f1": 0.0, "exact_match": 0.0}


def test_metrics_that_lack_their_columns_say_so() -> None:
    with pytest.raises(RunError, match=r"'question_em' needs group of every row"):
        score(multirc(), np.ones(2), np.ones(2))
    with pytest.raises(RunError, match=r"'token_f1' needs f1 or answers"):
        standard_error("token_f1", np.ones(2), np.ones(2), {"group": np.zeros(2)})
    with pytest.raises(RequestError, match=r"'token_f1' is for candidates and span_extraction"):
        spec_of(metrics=("token_f1",))
    with pytest.raises(RequestError, match="the two names of wrong and right"):
        spec_of(**{**CANDIDATES, "labels": ("a", "b", "c")})


def test_multiple_choice_is_a_cross_entropy_over_the_choices() -> None:
    spec = spec_of(kind="multiple_choice", inputs=("{a}", "{b}", "{b}"))
    flat = torch.tensor([[0.0], [math.log(3)], [1.0], [1.0]])  # as the head gives them: (B·2, 1)
    loss = task_loss(spec, flat, torch.tensor([1, 0]))
    assert loss.item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    assert decode(spec, flat.numpy().reshape(2, 2), {}).tolist() == [1, 0]


def test_spans_are_two_cross_entropies_over_positions() -> None:
    logits = torch.zeros(1, 3, 2)
    logits[0, 1, 0], logits[0, 2, 1] = math.log(2), math.log(6)
    loss = task_loss(spec_of(**SPANS), logits, torch.tensor([[1, 2]]))
    # start: 2 of 1 + 2 + 1; end: 6 of 1 + 1 + 6
    assert loss.item() == pytest.approx((math.log(2) + math.log(8 / 6)) / 2)
