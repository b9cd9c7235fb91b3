"""Drafts of tasks that are no text with a label: questions with spans, and multiple choice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtl.checks.columns import Column, find_texts
from mtl.errors import RequestError

SPANS = ("question", "context", "answers.text", "answers.answer_start")
"""Columns of questions that a span of the context answers, as SQuAD has them."""
MOST_CHOICES = 10

Form = tuple[dict[str, Any], list[str]]
"""The keys of the task file from ``kind`` on, and what is said of the guess."""


def other_form(columns: Mapping[str, Column]) -> Form | None:
    """What the columns are, where they are one of these forms beyond doubt; None elsewhere."""
    return _spans(columns) or _choices(columns)


def _spans(columns: Mapping[str, Column]) -> Form | None:
    if not all(name in columns for name in SPANS):
        return None
    keys = {
        "kind": "span_extraction",
        "prepare": "squad",
        "inputs": ["{question}", "{context}"],
        "metrics": ["token_f1", "exact_match"],
        "max_length": 384,
    }
    return keys, [
        "kind: span_extraction, 'answers' has texts and where they begin in 'context' (--label "
        "COLUMN and --kind for another)",
        "max_length: 384 tokens a window; longer contexts are read in several",
    ]


def _choices(columns: Mapping[str, Column]) -> Form | None:
    """Rows whose label names the column of the right choice."""
    for column in columns.values():
        labels = column.distinct
        if column.sets or not 2 <= len(labels) <= MOST_CHOICES:
            continue
        if not all(isinstance(label, str) and label in columns for label in labels):
            continue
        choices = [name for name in columns if name in labels]
        if column.name in choices or any(columns[name].words == 0 for name in choices):
            continue
        rest = {name: c for name, c in columns.items() if name not in {*choices, column.name}}
        try:
            context = find_texts(rest, [])[0].name
        except RequestError:
            return None
        if any(set(name) & set("{}:!") for name in (context, *choices)):
            return None
        keys = {
            "kind": "multiple_choice",
            "inputs": [f"{{{name}}}" for name in (context, *choices)],
            "label_column": column.name,
            "labels": choices,
            "metrics": ["accuracy"],
            "max_length": 128,
        }
        listed = ", ".join(map(repr, choices))
        unused = [name for name in rest if name != context]
        beside = f"; not used: {', '.join(unused)}" if unused else ""
        return keys, [
            f"kind: multiple_choice, column {column.name!r} names the right one of the columns "
            f"{listed} (--label {column.name} --kind classification for another)",
            f"texts: {context!r}, and each of these{beside}",
        ]
    return None
