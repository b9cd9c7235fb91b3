"""What a careful person says about labels that can be read: names that are nearly the same, numbers
written as words, sets written as one word.

:func:`mtl.tasks.label_cells.read_cell` decides what a cell is; nothing here changes that.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mtl.checks.findings import SHOWN, Example, Finding
from mtl.tasks.label_cells import read_cell
from mtl.tasks.label_forms import differences, folded, number_form

MOST_WHOLE_NUMBERS = 20
"""Whole numbers with more different values than this are a scale, not classes."""
SEPARATORS = (";", "|", ",", "/", "+")
"""What may stand between the labels of a cell, the likeliest first."""
_MISSING_MARKS = {"na", "n/a", "#n/a", "<na>", "null", "none", "nil", "-", "--", "?", "."}
_CLEARLY_MISSING = _MISSING_MARKS - {"none", "nil", "null"}  # these may name a class


@dataclass
class Seen:
    """How often a label stands in the data, and where first."""

    count: int = 0
    places: list[str] = field(default_factory=list)

    def add(self, count: int, places: Sequence[str]) -> None:
        """Count further rows."""
        self.count += count
        self.places = [*self.places, *places][:SHOWN]


def parts_of(
    names: Sequence[str], separators: Sequence[str] = SEPARATORS
) -> tuple[str, list[str]] | None:
    """The separator by which names fall into fewer parts than there are names, and these parts.

    ``a;b``, ``a``, ``b`` are sets of two labels. ``a;b`` and ``c`` may be two names: None.
    """
    for separator in separators:
        if not any(separator in name.strip(separator) for name in names):
            continue
        pieces = [[part.strip() for part in name.split(separator)] for name in names]
        items = Counter(item for row in pieces for item in {*row} if item)
        if 2 <= len(items) < len(names) and not any(number_form(name) for name in names):
            return separator, sorted(items)
    return None


def number_remarks(seen: Mapping[str, Seen]) -> Iterator[Finding]:
    """A remark about the cells of a regression: ``1.234`` is 1.234, and may have been 1,234.

    Args:
        seen: cell as it is written → where it stands.
    """
    points = [text for text in seen if "." in text]
    grouped = [text for text in points if re.fullmatch(r"[+-]?[1-9]\d{0,2}\.\d{3}", text)]
    if len(grouped) < 3 or len(grouped) < len(points):
        return
    places = [Example(seen[text].places[0], text) for text in grouped[:SHOWN]]
    count, total = (sum(seen[text].count for text in texts) for texts in (grouped, seen))
    yield Finding(
        "point-thousands",
        "remark",
        f"every label with a point has three digits behind it, such as {grouped[0]!r}, and is read "
        f"as a fraction; if the point groups thousands, write {grouped[0].replace('.', '')}",
        "",
        count,
        total,
        places,
    )


def label_remarks(seen: Mapping[str, Seen], kind: str) -> Iterator[Finding]:
    """Remarks about the names of classes or of a set's labels.

    Args:
        seen: label → where it stands.
        kind: the task's; of a regression there are no names.
    """
    total = sum(item.count for item in seen.values())

    def remark(check: str, names: Sequence[str], text: str) -> Finding:
        examples = [Example(seen[name].places[0], name) for name in names if seen[name].places]
        count = sum(seen[name].count for name in names)
        return Finding(check, "remark", text, "", count, total, examples[: max(SHOWN, 1)])

    names = [name for name in seen if seen[name].count]
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(folded(name), []).append(name)
    for group in groups.values():
        if len(group) > 1:
            listed = ", ".join(f"{name!r} ({seen[name].count:,})" for name in group)
            yield remark(
                "labels-alike",
                group,
                f"the labels {listed} differ only {' and '.join(differences(group))}, and are "
                "different classes; if they are one, write them alike in the data and in `labels`",
            )
    odd = [(name, form) for name in names if (form := number_form(name))]
    if len(odd) > 1:
        what = Counter(form[0] for _, form in odd).most_common(1)[0][0]
        name, (_, plain) = next(pair for pair in odd if pair[1][0] == what)
        yield remark(
            "number-names",
            [name for name, _ in odd],
            f"{len(odd)} of {len(names)} labels are numbers with {what}, read as names of classes; "
            f"to predict the number, write {plain} for {name!r} and `kind: regression`",
        )
    numbers = [name for name in names if read_cell(name).number is not None]
    if kind == "classification" and len(numbers) == len(names) > MOST_WHOLE_NUMBERS:
        yield remark(
            "many-numbers",
            names,
            f"all {len(names)} labels are numbers; `kind: regression` predicts the number itself "
            "and knows that 3 is nearer to 4 than to 40",
        )
    elif len(numbers) >= 2:
        marks = [name for name in names if name.casefold() in _MISSING_MARKS]
        if marks:
            yield _marked(remark, marks)
    else:
        marks = [name for name in names if name.casefold() in _CLEARLY_MISSING]
        if marks and len(names) > len(marks):
            yield _marked(remark, marks)
    split = parts_of(names) if kind == "classification" else None
    if split:
        separator, parts = split
        whole = next(name for name in names if separator in name)
        yield remark(
            "label-separator",
            [name for name in names if separator in name],
            f"labels such as {whole!r} hold others, separated by {separator!r} ({len(parts)} "
            f"different ones, as {len(names)} classes); for sets of labels write `kind: "
            f'multilabel` and `label_separator: "{separator}"`',
        )


def _marked(remark: Callable[[str, Sequence[str], str], Finding], marks: Sequence[str]) -> Finding:
    listed = ", ".join(map(repr, marks))
    return remark(
        "missing-mark",
        marks,
        f"the label {listed} is a class; if it marks rows without a label, remove these rows and "
        "take it out of `labels`",
    )
