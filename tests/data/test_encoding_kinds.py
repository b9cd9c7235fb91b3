"""Encodings of choices, of pairs whose first text is cut, and of windows, against the tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from task_bench import file_task, spec_of, table, three

from mtl.data import Encoded, Passes, TaskData, encode, eval_order, load_data
from mtl.data.task_data import Split
from mtl.errors import RequestError
from mtl.tasks import task_loss
from mtl.tasks.spans import MASKED, best_spans, read_spans, token_spans

LONG = "the cat sees a bird and " * 5
CHOICES = [
    {"p": "the dog is old", "c1": "no house", "c2": "every teacher finds a stone", "label": 1},
    {"p": "the river", "c1": "a red apple today", "c2": "the door", "label": 0},
    {"p": "the cat is sad", "c1": "it", "c2": "a bird", "label": 1},
]
SHARED = [
    {"p": LONG, "q": "no dog", "label": "yes"},
    {"p": "the river is green", "q": "the big door", "label": "no"},
    {"p": LONG, "q": "some friend likes the old house today", "label": "no"},
    {"p": "the river is green", "q": "a stone", "label": "yes"},
    {"p": LONG, "q": "", "label": "yes"},
]


@pytest.fixture(params=["roberta", "bert"])
def tokenizer(request: pytest.FixtureRequest, tiny: Callable[[str], str]) -> Any:
    return loaded(tiny(request.param), request.param == "bert")


@pytest.fixture
def words(tiny: Callable[[str], str]) -> Any:
    return loaded(tiny("roberta"), False)


def loaded(folder: str, types: bool) -> Any:
    """The tiny tokenizer; as BERT's it tells the texts apart by token types."""
    from tokenizers import processors
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if types:
        sep, cls = tokenizer.sep_token, tokenizer.cls_token
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{cls} $A {sep}",
            pair=f"{cls} $A {sep} $B:1 {sep}:1",
            special_tokens=[(cls, tokenizer.cls_token_id), (sep, tokenizer.sep_token_id)],
        )
        tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    return tokenizer


def choice_data(folder: Path, **changes: Any) -> TaskData:
    spec = file_task(
        folder,
        three(CHOICES),
        kind="multiple_choice",
        inputs=["{p} because", "{c1}", "{c2}"],
        labels=["c1", "c2"],
        **changes,
    )
    return load_data(spec, protocol="official")


def shared_data(folder: Path, **changes: Any) -> TaskData:
    spec = file_task(folder, three(SHARED), inputs=["{p}", "{q}"], truncate="first", **changes)
    return load_data(spec, protocol="official")


def span_data(rows: list[dict[str, Any]]) -> TaskData:
    """Questions with contexts and the answers' characters."""
    spec = spec_of(
        kind="span_extraction",
        inputs=("{q}", "{c}"),
        labels=(),
        metrics=("token_f1", "exact_match"),
        max_length=24,
    )
    split = Split(
        ([row["q"] for row in rows], [row["c"] for row in rows]),
        np.array([row["span"] for row in rows], dtype=np.int64),
        {"answers": [[row["c"][row["span"][0] : row["span"][1]]] for row in rows]},
    )
    prints = {"train": str(rows)}
    return TaskData(spec, {"train": split}, "official", "", prints, {"train": len(rows)})


def same_tensors(batch: Any, whole: Any) -> None:
    for name, values in whole.items():
        assert torch.equal(batch[name], values), name


@pytest.mark.parametrize("truncate", ["longest", "first"])
def test_choices_are_pairs_with_the_context_side_by_side(
    truncate: str, tmp_path: Path, tokenizer: Any
) -> None:
    encoded = encode(choice_data(tmp_path, truncate=truncate), "train", tokenizer)
    assert (encoded.choices, len(encoded), len(encoded.start)) == (2, 3, 7)
    for rows in (np.array([0]), np.array([2, 0, 1]), *eval_order(encoded, Passes(rows=2))):
        pairs = [(CHOICES[row], choice) for row in rows for choice in ("c1", "c2")]
        whole = tokenizer(
            [f"{row['p']} because" for row, _ in pairs],
            [row[choice] for row, choice in pairs],
            padding=True,
            return_tensors="pt",
        )
        batch = encoded.collate(rows)
        same_tensors(batch, whole)
        assert batch["labels"].tolist() == [CHOICES[row]["label"] for row in rows]
        assert batch["row"].tolist() == rows.tolist()
    longest = [[len(ids) for ids in encoded.tokens(row)] for row in range(3)]
    assert encoded.lengths.tolist() == [max(pair) for pair in longest]


def test_special_tokens_of_copa_are_roberta_like(tmp_path: Path, words: Any) -> None:
    encoded = encode(choice_data(tmp_path), "train", words)
    tokens = [" ".join(words.convert_ids_to_tokens(ids)) for ids in encoded.tokens(1)]
    unknown = words.unk_token
    assert tokens == [
        f"<s> the river {unknown} </s> a red apple today </s>",
        f"<s> the river {unknown} </s> the door </s>",
    ]


@pytest.mark.parametrize("length", [64, 20])
def test_a_first_text_is_cut_and_held_once(tmp_path: Path, tokenizer: Any, length: int) -> None:
    encoded = encode(shared_data(tmp_path), "train", tokenizer, max_length=length)
    assert encoded.shared is not None
    assert encoded.shared.lead.tolist() == [0, 1, 0, 1, 0]
    whole = tokenizer(
        [row["p"] for row in SHARED],
        [row["q"] for row in SHARED],
        truncation="only_first",
        max_length=length,
        padding=True,
        return_tensors="pt",
    )
    same_tensors(encoded.collate(np.arange(5)), whole)
    assert encoded.truncated == (3 if length == 20 else 0)
    assert encoded.lengths.tolist() == whole["attention_mask"].sum(1).tolist()
    for row in range(5):
        (ids,) = encoded.tokens(row)
        assert ids.tolist() == whole["input_ids"][row][: len(ids)].tolist()
    batch = encoded.collate(np.array([3]))  # padded to the batch's longest, not to the split's
    assert batch["input_ids"].shape[1] == encoded.lengths[3]


def test_each_distinct_first_text_is_tokenised_once(
    tmp_path: Path, words: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    real = type(words).__call__

    def counting(self: Any, text: Any, *args: Any, **kwargs: Any) -> Any:
        seen.extend([text] if isinstance(text, str) else text)
        return real(self, text, *args, **kwargs)

    monkeypatch.setattr(type(words), "__call__", counting)
    encode(shared_data(tmp_path), "train", words)
    assert [text for text in seen if text != "a"] == [
        LONG,
        "the river is green",
        *(row["q"] for row in SHARED),
    ]


@pytest.mark.parametrize("length", [20, 64])
def test_a_tokenizer_that_cuts_on_the_left_cuts_the_first_text_there(
    tmp_path: Path, tokenizer: Any, length: int
) -> None:
    data = shared_data(tmp_path)
    right = encode(data, "train", tokenizer, max_length=length)
    tokenizer.truncation_side = "left"
    encoded = encode(data, "train", tokenizer, max_length=length)
    texts = [list(column) for column in data.splits["train"].texts]
    expected = tokenizer(*texts, truncation="only_first", max_length=length)
    for row, ids in enumerate(expected["input_ids"]):
        assert encoded.tokens(row)[0].tolist() == ids
    if encoded.types is not None:
        assert encoded.types.tolist() == [
            kind for row in expected["token_type_ids"] for kind in row
        ]
    assert (encoded.truncated, encoded.shared) == (right.truncated, None)
    assert encoded.fingerprint != right.fingerprint
    with pytest.raises(RequestError, match="leaves no room"):
        encode(data, "train", tokenizer, max_length=6)


def test_a_second_text_that_leaves_no_room(tmp_path: Path, words: Any) -> None:
    with pytest.raises(RequestError, match=r"own/pair.*row 2: its second text has 7 tokens.*in 10"):
        encode(shared_data(tmp_path), "train", words, max_length=10)


def test_shared_encodings_come_back_from_the_cache(tmp_path: Path, tokenizer: Any) -> None:
    data, cache = shared_data(tmp_path), tmp_path / "cache"
    first = encode(data, "train", tokenizer, cache=cache)
    again = encode(data, "train", tokenizer, cache=cache)
    assert len(list(cache.rglob("*.safetensors"))) == 1
    same_tensors(again.collate(np.arange(5)), first.collate(np.arange(5)))


def test_how_texts_are_cut_is_in_the_fingerprint_and_the_default_is_not(
    tmp_path: Path, words: Any
) -> None:
    prints = {
        encode(shared_data(tmp_path, **changes), "train", words).fingerprint
        for changes in ({}, {"kind": "classification"})
    }
    assert len(prints) == 1
    longest = load_data(
        file_task(tmp_path, three(SHARED), inputs=["{p}", "{q}"]), protocol="official"
    )
    assert encode(longest, "train", words).fingerprint not in prints
    kept = longest.spec.to_dict()
    assert "truncate" not in kept
    assert "dev" not in kept
    assert shared_data(tmp_path).spec.to_dict()["truncate"] == "first"


ROWS = [
    {"q": "no dog", "c": "the cat sees a small bird today", "span": [15, 25]},
    {"q": "a", "c": LONG + "the red door " + LONG, "span": [len(LONG) + 4, len(LONG) + 12]},
    {"q": "the old house", "c": LONG * 2 + "happy", "span": [len(LONG) * 2, len(LONG) * 2 + 5]},
]


@pytest.fixture
def windows(tokenizer: Any) -> Encoded:
    return encode(span_data(ROWS), "train", tokenizer)


def test_windows_overlap_and_cover_the_context(windows: Encoded, tokenizer: Any) -> None:
    example, start = windows.table["example"], windows.start
    begin, end = windows.table["begin"], windows.table["end"]
    assert windows.lengths.max() == 24
    assert np.bincount(example)[0] == 1
    assert windows.truncated == 2
    for row, item in enumerate(ROWS):
        whole = tokenizer(item["c"], add_special_tokens=False)["input_ids"]
        covered: set[tuple[int, int]] = set()
        last: set[tuple[int, int]] = set()
        for window in np.flatnonzero(example == row):
            part = slice(start[window], start[window + 1])
            here = {pair for pair in zip(begin[part], end[part], strict=True) if pair[0] >= 0}
            assert not last or len(last & here) == 24 // 3
            covered, last = covered | here, here
            (ids,) = windows.tokens(int(window))
            question = tokenizer(item["q"], add_special_tokens=False)["input_ids"]
            assert ids[1 : 1 + len(question)].tolist() == question
        assert len(covered) == len(whole)


def test_a_windows_label_is_its_examples_answer_or_the_first_token(
    windows: Encoded, tokenizer: Any
) -> None:
    found = []
    for window, (first, last) in enumerate(windows.labels):
        (ids,) = windows.tokens(window)
        if (first, last) != (0, 0):
            tokens = tokenizer.convert_ids_to_tokens(ids[first : last + 1].tolist())
            found.append((int(windows.table["example"][window]), " ".join(tokens)))
    assert set(found) == {(0, "small bird"), (1, "red door"), (2, "happy")}
    assert (windows.labels == 0).all(axis=1).any()


def test_right_logits_decode_to_the_answers(windows: Encoded) -> None:
    spec, width = span_data(ROWS).spec, int(windows.lengths.max())
    logits = np.full((len(windows), width, 2), -5.0, dtype=np.float32)
    for window, span in enumerate(windows.labels):
        for side in (0, 1):  # the special first token is never an answer, whatever its logit
            logits[window, span[side], side] = 9.0 if span.any() else 50.0
    flat = logits.reshape(len(windows), -1)
    spans, scores = best_spans(flat, windows.table)
    assert spans.tolist() == [row["span"] for row in ROWS]
    assert scores.tolist() == [18.0] * 3
    assert task_loss(spec, torch.tensor(flat), torch.tensor(windows.labels)).item() < 1e-3
    # Positions without token count for nothing, however wide the batch was.
    wide = np.pad(flat, ((0, 0), (0, 10)), constant_values=MASKED)
    assert np.array_equal(best_spans(wide, windows.table)[0], spans)
    loss = task_loss(spec, torch.tensor(wide), torch.tensor(windows.labels))
    torch.testing.assert_close(
        loss, task_loss(spec, torch.tensor(flat), torch.tensor(windows.labels))
    )


def test_the_best_span_by_hand() -> None:
    # One window: <s> q </s> and five tokens of two characters each; then one without context.
    tables = {
        "example": np.array([0, 1]),
        "start": np.array([0, 8, 10]),
        "begin": np.array([-1, -1, -1, 0, 2, 4, 6, 8, -1, -1]),
        "end": np.array([-1, -1, -1, 2, 4, 6, 8, 10, -1, -1]),
    }
    logits = np.zeros((2, 8, 2), dtype=np.float32)
    logits[0, 6, 0] = 3.0  # the best start …
    logits[0, 4, 1] = 3.0  # … stands behind the best end: the two do not make a span
    logits[0, 7, 1] = 1.0
    spans, scores = best_spans(logits.reshape(2, -1), tables)
    assert spans.tolist() == [[6, 10], [0, 0]]
    assert scores[0] == 4.0
    assert np.isfinite(scores).all()


def test_token_spans_need_the_whole_answer() -> None:
    begin, end = np.array([-1, 0, 2, 4, -1, 4, 6]), np.array([-1, 2, 4, 6, -1, 6, 8])
    start = np.array([0, 4, 7])
    found = token_spans(begin, end, start, np.array([[2, 6], [2, 6]]))
    assert found.tolist() == [[2, 3], [0, 0]]
    inner = token_spans(begin, end, start, np.array([[1, 3], [5, 7]]))
    assert inner.tolist() == [[1, 2], [1, 2]]


def test_questions_and_spans_that_cannot_be_used(words: Any) -> None:
    from mtl.tasks.label_columns import LabelColumn

    long = {"q": "the cat sees a bird and the dog likes it and a door", "c": "a b", "span": [0, 1]}
    with pytest.raises(RequestError, match=r"'train': row 1: the question has 13 tokens"):
        encode(span_data([ROWS[0], long]), "train", words)
    for value, message in (
        ([3, 3], r"row 1: the span \[3, 3\] is empty"),
        ([-1, 3], "begins before the text"),
        ([3], r"\[3\] where a span \[begin, end\] is expected"),
    ):
        values = table([{"label": [0, 1]}, {"label": value}]).column("label")
        with pytest.raises(RequestError, match=message):
            read_spans(LabelColumn(values, None, "here", lambda row: f"row {row}"))
    for inputs in (("{q}",), ("{q}", "so: {c}"), ("{q}", "{c}{d}")):
        with pytest.raises(RequestError, match="the context's column alone"):
            spec_of(kind="span_extraction", inputs=inputs, labels=(), metrics=("token_f1",))
    with pytest.raises(RequestError, match=r"inputs must be the context and a template for each"):
        spec_of(kind="multiple_choice", inputs=("{a}", "{b}"))
