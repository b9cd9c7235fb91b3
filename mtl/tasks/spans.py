"""Answers as spans of a text: SQuAD's rows, character spans and token spans, the best span.

An example has a context that may be longer than the encoder; it is read through windows that
overlap. A label is the first answer's span (begin, end) in characters of the context, end
excluded; a window's label is the same in tokens, end included, or (0, 0), the first token, where
the answer does not lie in it whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.errors import RequestError
from mtl.tasks.row_functions import columns_of

if TYPE_CHECKING:
    import pyarrow as pa

    from mtl.tasks.label_columns import LabelColumn

LONGEST = 30
"""Tokens of an answer at most, as in SQuAD's usual decoding."""
MASKED = -1e4
"""Logit of positions that are no token; small enough to count as none, and finite in fp16."""


def squad(table: pa.Table) -> pa.Table:
    """SQuAD v1.1: ``label``, the first answer as [begin, end] in characters, and all ``answers``.

    Questions lose the white space around them, which some have thousands of.

    Raises:
        RequestError: a row without answers, or an answer that is not where ``answer_start`` says.
    """
    import pyarrow as pa

    contexts, given = columns_of(table, ["context", "answers"])
    spans: list[list[int]] = []
    texts: list[list[str]] = []
    for row, (context, answers) in enumerate(zip(contexts, given, strict=True)):
        if not answers["text"]:
            raise RequestError(
                f"row {row}: there is no answer. Questions without answer (SQuAD v2) and hidden "
                "test labels are not supported."
            )
        for text, begin in zip(answers["text"], answers["answer_start"], strict=True):
            if not text or context[begin : begin + len(text)] != text:
                raise RequestError(
                    f"row {row}: the answer {text!r} does not stand at character {begin} of the "
                    f"context, which reads {context[begin : begin + len(text)]!r} there."
                )
        begin = answers["answer_start"][0]
        spans.append([begin, begin + len(answers["text"][0])])
        texts.append(list(answers["text"]))
    gold = pa.array(texts, pa.list_(pa.large_string()))
    prepared = squad_questions(table)
    prepared = prepared.append_column("label", pa.array(spans, pa.list_(pa.int64(), 2)))
    return prepared.append_column("answers", gold)


def squad_questions(table: pa.Table) -> pa.Table:
    """Questions and contexts alone, of rows without answers."""
    import pyarrow as pa

    questions, _ = columns_of(table, ["question", "context"])
    stripped = pa.array([text.strip() for text in questions], pa.large_string())
    return pa.table({"question": stripped, "context": table.column("context")})


def read_spans(column: LabelColumn) -> np.ndarray:
    """(n,2) int64, begin and end in characters of the second text.

    Raises:
        RequestError: something else than two numbers with 0 ≤ begin < end.
    """
    spans = np.zeros((len(column.values), 2), dtype=np.int64)
    for row, value in enumerate(column.values.to_pylist()):
        good = isinstance(value, list) and len(value) == 2
        if not good or not all(isinstance(part, int) for part in value):
            raise column.fail(row, f"{value!r} where a span [begin, end] is expected.")
        if not 0 <= value[0] < value[1]:
            raise column.fail(row, f"the span {value} is empty or begins before the text.")
        spans[row] = value
    return spans


def token_spans(
    begin: np.ndarray, end: np.ndarray, start: np.ndarray, spans: np.ndarray
) -> np.ndarray:
    """(W,2) int64: the spans in tokens of their windows, (0, 0) where a window has not all of it.

    Args:
        begin, end: characters of every token, flat over windows; −1 outside of the context.
        start: (W+1,) where windows start in them.
        spans: (W,2) characters, the span of each window's example.
    """
    found = np.zeros_like(spans)
    for window, (first, last) in enumerate(spans):
        low, high = start[window], start[window + 1]
        inside = (
            (begin[low:high] >= 0) & (end[low:high] > first) & (begin[low:high] < last)
        ).nonzero()[0]
        if not len(inside):
            continue
        # The whole answer: its first token starts at or before it, its last one ends behind it.
        if begin[low + inside[0]] <= first and end[low + inside[-1]] >= last:
            found[window] = inside[0], inside[-1]
    return found


def best_spans(logits: np.ndarray, table: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The best span of every example over its windows: (n,2) characters and (n,) scores.

    The score of tokens (s, e) is start logit of s + end logit of e; both lie in the context and
    s ≤ e < s + :data:`LONGEST`. Of equal scores the earlier window, the shorter span and then the
    earlier token wins.

    Args:
        logits: (W,2·L), start and end logit of every position side by side.
        table: ``example`` (W,), ``begin`` and ``end`` (characters of all tokens), ``start``.
    """
    windows, width = len(logits), logits.shape[1] // 2
    start = np.asarray(table["start"])
    score = np.full(windows, -np.inf, dtype=np.float32)
    tokens = np.zeros((windows, 2), dtype=np.int64)
    step = 512
    for low in range(0, windows, step):
        part = slice(low, min(low + step, windows))
        lengths = np.diff(start)[part]
        columns = np.arange(width)
        places = start[:-1][part, None] + columns
        inside = columns < lengths[:, None]
        inside &= np.asarray(table["begin"])[np.where(inside, places, 0)] >= 0
        pairs = logits[part].reshape(-1, width, 2)
        first = np.where(inside, pairs[..., 0], -np.inf)
        last = np.where(inside, pairs[..., 1], -np.inf)
        for length in range(min(LONGEST, width)):
            both = first[:, : width - length] + last[:, length:]
            place = both.argmax(axis=1)
            value = both[np.arange(len(both)), place]
            better = value > score[part]
            score[part] = np.where(better, value, score[part])
            tokens[part][better] = np.stack([place, place + length], axis=1)[better]
    example = np.asarray(table["example"])
    ranked = np.lexsort((-np.arange(windows), score, example))
    chosen = ranked[np.flatnonzero(np.append(np.diff(example[ranked]) != 0, True))]
    at = start[:-1][chosen, None] + tokens[chosen]
    found = np.stack(
        [np.asarray(table["begin"])[at[:, 0]], np.asarray(table["end"])[at[:, 1]]], axis=1
    )
    # A window without any token of the context offers nothing; its example then says nothing.
    found[~np.isfinite(score[chosen])] = 0
    return found.astype(np.int64), np.maximum(score[chosen], MASKED)
