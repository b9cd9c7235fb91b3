"""Test rows that stand in training rows: of the same task, and of other tasks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mtl.checks.findings import SHOWN, Example, Finding, share, short
from mtl.checks.overlap import SHORTEST, Match, exact_matches, near_matches, normalise

if TYPE_CHECKING:
    from mtl.data.raw_rows import RawRows
    from mtl.data.task_data import Split, TaskData

LEAKY = 0.01
"""Share of test rows that stand in the training rows from which a test is not to be trusted."""
_WORDS = 5  # texts with fewer are shared without meaning anything


def leaks(data: TaskData, rows: RawRows, near: float) -> Iterator[Finding]:
    """Rows of dev and test that stand in train: exactly, nearly, or (of test) with one text.

    An exact leak of :data:`LEAKY` or more of a test split is a problem; the rest are remarks, for
    benchmarks hold some, and pairs may share a text on purpose.
    """
    train = _inputs(data.splits["train"])
    for name, split in data.splits.items():
        if name == "train":
            continue
        inputs = _inputs(split)
        exact = exact_matches(inputs, train)
        bad = name != "dev" and len(exact) >= LEAKY * len(inputs)
        what = "have inputs that stand in train, too"
        yield from _found("leak-exact", bad, data, rows, name, exact, what)
        known = {match.row for match in exact}
        close = [m for m in near_matches(inputs, train, near) if m.row not in known]
        what = f"have nearly the inputs of a training row (similarity {near:g} or more)"
        yield from _found("leak-near", False, data, rows, name, close, what)
        known |= {match.row for match in close}
        for template, texts, others in zip(
            data.spec.inputs, split.texts, data.splits["train"].texts, strict=True
        ):
            if len(split.texts) == 1 or name == "dev":
                continue
            seen = {text: row for row, text in reversed(list(enumerate(others)))}
            shared = [
                Match(row, seen[text], 1.0)
                for row, text in enumerate(texts)
                if row not in known and text in seen and len(text.split()) >= _WORDS
            ]
            what = f"have their {template!r} in train, with another partner"
            yield from _found("leak-text", False, data, rows, name, shared, what)


def leaks_between(
    tested: TaskData,
    tested_rows: RawRows,
    trained: TaskData,
    trained_rows: RawRows,
    near: float,
) -> Iterator[Finding]:
    """Test rows of one task whose texts stand in the training rows of another.

    Tasks pair texts differently, so texts are compared one by one: those of at least
    :data:`~mtl.checks.overlap.SHORTEST` characters. A row leaks if all of these stand there. Of an
    exact leak of :data:`LEAKY` of the rows or more the composition's test is not to be trusted.
    """
    pool = trained.splits["train"]
    place: dict[str, int] = {}
    for texts in pool.texts:
        for row, text in enumerate(texts):
            if len(text) >= SHORTEST:
                place.setdefault(text, row)
    others = [(text,) for text in place]
    for name, split in tested.splits.items():
        if name in {"train", "dev"}:
            continue
        long = [
            [text for text in texts if len(normalise(text)) >= SHORTEST] for texts in _inputs(split)
        ]
        number: dict[str, int] = {}
        for texts in long:
            for text in texts:
                number.setdefault(text, len(number))
        distinct = [(text,) for text in number]
        exact = {m.row: m for m in exact_matches(distinct, others)}
        close = {m.row: m for m in near_matches(distinct, others, near)}
        for check, matches, what in (
            ("leak-exact", exact, "have all their texts"),
            ("leak-near", {**close, **exact}, "have all their texts, or nearly so,"),
        ):
            found = []
            for row, texts in enumerate(long):
                pairs = [matches.get(number[text]) for text in texts]
                kept = [pair for pair in pairs if pair is not None]
                if not pairs or len(kept) < len(pairs):
                    continue
                least = min(kept, key=lambda pair: pair.similarity)
                if check == "leak-near" and all(number[text] in exact for text in texts):
                    continue  # said already
                found.append(Match(row, place[others[least.other][0]], least.similarity))
            bad = check == "leak-exact" and len(found) >= LEAKY * len(split)
            examples = [
                Example(
                    tested_rows.place(split.source, int(split.rows[match.row])),
                    short([texts[match.row] for texts in split.texts]),
                    trained_rows.place(pool.source, int(pool.rows[match.other])),
                    round(match.similarity, 4) if check == "leak-near" else None,
                )
                for match in found[:SHOWN]
            ]
            if found:
                yield Finding(
                    check,
                    "problem" if bad else "remark",
                    f"{name}: {share(len(found), len(split))} {what} in the training rows of "
                    f"{trained.spec.id}",
                    name,
                    len(found),
                    len(split),
                    examples,
                )


def _inputs(split: Split) -> list[tuple[str, ...]]:
    return list(zip(*split.texts, strict=True))


def _found(
    check: str,
    bad: bool,
    data: TaskData,
    rows: RawRows,
    name: str,
    matches: Sequence[Match],
    what: str,
) -> Iterator[Finding]:
    if not matches:
        return
    split, pool = data.splits[name], data.splits["train"]
    examples = [
        Example(
            rows.place(split.source, int(split.rows[match.row])),
            short([texts[match.row] for texts in split.texts]),
            rows.place(pool.source, int(pool.rows[match.other])),
            round(match.similarity, 4) if check == "leak-near" else None,
        )
        for match in sorted(matches, key=lambda match: -match.similarity)[:SHOWN]
    ]
    yield Finding(
        check,
        "problem" if bad else "remark",
        f"{name}: {share(len(matches), len(split))} {what}",
        name,
        len(matches),
        len(split),
        examples,
    )
