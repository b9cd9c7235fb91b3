"""What a careful person says about labels that can be read: names that are nearly the same, numbers
written as words, sets written as one word.

:func:`mtl.tasks.cells.read_cell` decides what a cell is; nothing here changes that.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from unicodedata import category, normalize

from mtl.tasks.cells import Cell, read_cell
from mtl.tasks.findings import SHOWN, Example, Finding

MOST_WHOLE_NUMBERS = 20
"""Whole numbers with more different values than this are a scale, not classes."""
SEPARATORS = (";", "|", ",", "/", "+")
"""What may stand between the labels of a cell, the likeliest first."""
_MISSING_MARKS = {"na", "n/a", "#n/a", "<na>", "null", "none", "nil", "-", "--", "?", "."}
_CLEARLY_MISSING = _MISSING_MARKS - {"none", "nil", "null"}  # these may name a class
_DASHES = dict.fromkeys(map(ord, "‐‑‒–—−"), "-")


@dataclass
class Seen:
    """How often a label stands in the data, and where first."""

    count: int = 0
    places: list[str] = field(default_factory=list)

    def add(self, count: int, places: Sequence[str]) -> None:
        """Count further rows."""
        self.count += count
        self.places = [*self.places, *places][:SHOWN]


def _visible(text: str) -> str:
    return "".join(sign for sign in text if category(sign) != "Cf" and not "︀" <= sign <= "️")


def _number(text: str) -> str:
    cell = read_cell(text)
    return text if cell.number is None else str(cell.number.normalize())


FOLDS: dict[str, Callable[[str], str]] = {
    "in case": str.casefold,
    "in Unicode form (NFC or NFD)": lambda text: normalize("NFC", text),
    "in Unicode compatibility form (such as full-width letters)": lambda text: normalize(
        "NFKC", text
    ),
    "in invisible characters": _visible,
    "in spaces": lambda text: " ".join(text.split()),
    "in the kind of dash": lambda text: text.translate(_DASHES),
    "in how a number is written": _number,
}
"""Differences that people do not see or do not mean → what makes them vanish."""


def folded(text: str) -> str:
    """A label without any of these differences."""
    for fold in (*FOLDS.values(), str.casefold):  # NFKC may bring capitals back
        text = fold(text)
    return text


def differences(names: Sequence[str]) -> list[str]:
    """In what names differ that are equal when folded."""
    merging = [what for what, fold in FOLDS.items() if len({*map(fold, names)}) < len(names)]
    form, compatible = list(FOLDS)[1:3]
    if form in merging and compatible in merging:  # composing is part of it
        merging.remove(compatible)
    changing = [what for what, fold in FOLDS.items() if any(fold(name) != name for name in names)]
    return merging or changing


def twin_of(cell: Cell, labels: Sequence[str]) -> str:
    """A sentence about a label of the task that differs from a cell only in form, or nothing."""
    twin = next((name for name in labels if folded(name) == folded(cell.text)), None)
    if twin is None:
        return ""
    how = " and ".join(differences([twin, cell.text]))
    return f" It differs from {twin!r} only {how}: write both alike."


def number_form(text: str) -> tuple[str, str] | None:
    """What makes a number no plain one, and its plain form: ``("a decimal comma", "3.7")``.

    None for plain numbers and for what is no number at all. ``1,234`` has two plain forms.
    """
    if read_cell(text).number is not None:
        return None
    plain = _visible(normalize("NFKC", text)).translate(_DASHES).strip()
    if re.fullmatch(r"[+-]?\d+([.,]\d+)?\s?%", plain):
        return "a percent sign", plain.rstrip("% ").replace(",", ".")
    if re.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}", plain):
        both = f"{plain.replace(',', '')} or {plain.replace(',', '.')}"
        return "a thousands separator or a decimal comma", both
    if re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?", plain) and not plain.startswith("0"):
        return "thousands separators", plain.replace(",", "")
    if re.fullmatch(r"[+-]?[1-9]\d{0,2}(\.\d{3}){2,}", plain):
        return "thousands separators", plain.replace(".", "")
    if re.fullmatch(r"[+-]?\d{1,3}(\.\d{3})+,\d+|[+-]?\d*,\d+", plain):
        return "a decimal comma", plain.replace(".", "").replace(",", ".")
    if re.fullmatch(r"[+-]?\d+([ '’_]\d+)+(\.\d+)?", plain):
        return "grouped digits", re.sub("[ '’_]", "", plain)
    if plain != text.strip() and read_cell(plain).number is not None:
        return "digits or signs that are not plain ones", plain
    return None


def number_meant(cell: Cell) -> str:
    """A sentence about the number that a text probably means, or nothing."""
    found = number_form(cell.text)
    return f" It has {found[0]}: write {found[1]}." if found else ""


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
