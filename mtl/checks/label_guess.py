"""What the labels of somebody's files are, for a first task file: which kind, which form, which
names. What is guessed here is written into the file; nothing that trains guesses."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mtl.checks.columns import MOST_CLASSES, Column, refuse_names
from mtl.checks.findings import Finding
from mtl.checks.label_remarks import (
    MOST_WHOLE_NUMBERS,
    SEPARATORS,
    Seen,
    label_remarks,
    number_remarks,
    parts_of,
)
from mtl.errors import RequestError
from mtl.tasks.kinds import KINDS
from mtl.tasks.label_cells import EXACT_DIGITS, Cell, read_cell
from mtl.tasks.label_columns import LabelColumn
from mtl.tasks.label_forms import number_form
from mtl.tasks.label_sets import are_vectors
from mtl.tasks.spec import TaskSpec

_SURE = SEPARATORS[:3]  # "/" and "+" stand within names, too: said, not guessed
KINDS_DRAFTED = ("classification", "regression", "multilabel")


@dataclass(frozen=True)
class LabelGuess:
    """The labels of a draft.

    Attributes:
        kind: of the task.
        keys: of the task file: where the labels stand, in which form, and their names.
        why: why this kind, a phrase.
        said: further sentences for who reads the draft.
    """

    kind: str
    keys: Mapping[str, Any]
    why: str
    said: tuple[str, ...] = ()


def guess_labels(golds: Sequence[Column], asked: str | None) -> LabelGuess:
    """Kind, form and names of the labels in one column or in several of 0 and 1.

    Args:
        golds: the columns of the label.
        asked: the kind, if it is known.

    Raises:
        RequestError: what stands there is no label, or may be two things; says which, and how to
            choose.
    """
    if len(golds) > 1:
        return _columns(golds, asked)
    (gold,) = golds
    if not gold.present or (gold.sets and not any(gold.sets)):
        raise RequestError(
            f"Column {gold.name!r} holds no label in any row. Name another column with --label."
        )
    strange = next(_strange(gold), None)
    if strange is not None:
        row, what = strange
        raise RequestError(
            f"Column {gold.name!r}, {gold.place(row)}: {what} where a label is expected: a name, a "
            "number, or a list of names. Write one of these into each row, or a column of 0 and 1 "
            "for each label, or name another column with --label."
        )
    if gold.sets is not None:
        return _lists(gold, gold.sets, asked)
    if asked == "multilabel":
        return _separated(gold, asked)
    if asked is None and not gold.names:
        parts = parts_of(sorted({*map(str, gold.present)}), _SURE)
        if parts and gold.numbers is None and len(parts[1]) <= MOST_CLASSES:
            return _separated(gold, asked)
    return _single(gold, asked)


def _strange(gold: Column) -> Iterator[tuple[int, str]]:
    for row, value in enumerate(gold.values):
        items = value if isinstance(value, list) else [value]
        for item in items:
            if isinstance(item, dict | list):
                what = "an object" if isinstance(item, dict) else "a list in a list"
                yield row, f"{what} ({json.dumps(item, default=str)[:80]})"


def _columns(golds: Sequence[Column], asked: str | None) -> LabelGuess:
    for gold in golds:
        if not gold.flags:
            row = next(row for row, value in enumerate(gold.values) if read_cell(value).on is None)
            raise RequestError(
                f"Column {gold.name!r}, {gold.place(row)}: {gold.values[row]!r} is neither 0 nor "
                "1. Several columns are labels only where each says so of every row."
            )
    names = [gold.name for gold in golds]
    rows = zip(*(gold.values for gold in golds), strict=True)
    ones = Counter(sum(bool(read_cell(value).on) for value in row) for row in rows)
    kind, why = _one_or_several(ones, asked)
    return LabelGuess(kind, {"label_columns": names, "labels": names}, why)


def _lists(gold: Column, sets: Sequence[list[Any]], asked: str | None) -> LabelGuess:
    where = {"label_column": gold.name}
    lengths = {len(items) for items in sets}
    if are_vectors(sets):
        (length,) = lengths
        ones = Counter(sum(bool(read_cell(item).on) for item in items) for items in sets)
        kind, why = _one_or_several(ones, asked)
        labels = [f"label_{place}" for place in range(length)]
        keys = {**where, "label_vectors": True, "labels": labels}
        said = f"labels: {labels[0]} to {labels[-1]}, the {length} places of the vectors; write "
        said += "their names into the file, in this order"
        return LabelGuess(kind, keys, f"{why}, in vectors of {length}", (said,))
    if asked in {"classification", "regression"}:
        row = next(row for row, value in enumerate(gold.values) if not read_cell(value).missing)
        raise RequestError(
            f"Column {gold.name!r}, {gold.place(row)}: {gold.values[row]!r} is a list of labels, "
            f"and a {asked} needs one label per row. Say --kind multilabel."
        )
    cells = {read_cell(item).text for items in sets for item in items}
    return LabelGuess(
        "multilabel", {**where, "labels": _sorted(gold.names or cells)}, "the labels are lists"
    )


def _one_or_several(ones: Counter[int], asked: str | None) -> tuple[str, str]:
    """Kind for rows of 0 and 1, by how many ones they hold."""
    if asked == "regression":
        raise RequestError("--kind regression needs one number per row, not several of 0 and 1.")
    if asked is not None:
        return asked, "as asked"
    if set(ones) == {1}:
        return "classification", "each row has exactly one 1"
    return "multilabel", f"rows have {min(ones)} to {max(ones)} labels"


def _separated(gold: Column, asked: str | None) -> LabelGuess:
    names = sorted({*map(str, gold.present)})
    found = parts_of(names, _SURE) or parts_of(names)
    if found is None:  # asked for: any separator will do
        separator = next((s for s in SEPARATORS if any(s in name for name in names)), "")
        if not separator:
            raise RequestError(
                f"Column {gold.name!r} holds one label per row ({', '.join(map(repr, names[:3]))}, "
                "…), no lists, and no separator such as 'a;b'. Leave --kind multilabel away, or "
                "write several labels into a cell."
            )
        found = separator, sorted({p.strip() for n in names for p in n.split(separator)} - {""})
    separator, parts = found
    whole = next(name for name in names if separator in name)
    why = "as asked" if asked else f"cells such as {whole!r} hold several of {len(parts)} labels"
    keys = {"label_column": gold.name, "label_separator": separator, "labels": _sorted(parts)}
    said = []
    empty = sum(isinstance(value, str) and not value.strip() for value in gold.values)
    if empty:
        said.append(f"{empty} of {len(gold.values)} rows have an empty cell: no label of the list")
    if not asked:
        said.append(
            f"label_separator: {separator!r} (--kind classification if {whole!r} is one name)"
        )
    return LabelGuess("multilabel", keys, why, tuple(said))


def _single(gold: Column, asked: str | None) -> LabelGuess:
    where = {"label_column": gold.name}
    different = _distinct_cells(gold)
    if asked is None:
        kind, why = _kind(gold, different)
    else:
        kind, why = asked, "as asked"
    if kind == "regression":
        refuse_names(gold)
        return LabelGuess(kind, where, why)
    labels = _names(gold)
    said = []
    if "-1" in labels:
        said.append(
            "labels: -1 is taken for a class; where it marks hidden labels, remove these rows and "
            "take it out of the list"
        )
    if len(labels) < 2:
        value = next(iter(gold.present), None)
        raise RequestError(
            f"Column {gold.name!r} holds only {value!r}; a classifier needs at least two classes."
        )
    return LabelGuess(kind, {**where, "labels": labels}, why, tuple(said))


def _distinct_cells(gold: Column) -> list[Cell]:
    """Cells that differ in what they are, not only in how a number is written."""
    found: dict[tuple[str, bool | None], Cell] = {}
    for value in dict.fromkeys(gold.present):
        cell = read_cell(value)
        found.setdefault((cell.name, cell.truth), cell)
    return list(found.values())


def _kind(gold: Column, cells: Sequence[Cell]) -> tuple[str, str]:
    if gold.names:
        return "classification", f"the file names {len(gold.names)} classes"
    plain = [cell for cell in cells if cell.number is not None and not cell.code]
    codes = [cell for cell in cells if cell.code]
    long = [cell for cell in plain if _digits(cell) > EXACT_DIGITS]
    odd = [(cell, form) for cell in cells if (form := number_form(cell.text))]
    like = len(plain) + len(odd) + len(codes)
    scale = len(cells) > MOST_WHOLE_NUMBERS or any(
        not read_cell(text).whole
        for text in [cell.text for cell in plain] + [form[1].split(" or ")[-1] for _, form in odd]
    )
    if scale and like >= 0.9 * len(cells) and (like > len(plain) or like < len(cells) or long):
        raise _ambiguous(gold, cells, plain, odd, long)
    if len(plain) == len(cells) and not long:
        if not all(cell.whole for cell in cells):
            return "regression", "the labels are numbers with fractions"
        if len(cells) > MOST_WHOLE_NUMBERS:
            return "regression", f"the labels are {len(cells)} different numbers"
    if len(cells) > MOST_CLASSES:
        raise RequestError(
            f"Column {gold.name!r} has {len(cells)} different values; that is no class. Name "
            "another column with --label, or say what it is with --kind."
        )
    return "classification", f"the labels are {len(cells)} different values"


def _digits(cell: Cell) -> int:
    """How many digits a cell of digits has; 0 of 1e300, which is no identifier."""
    text = cell.text.lstrip("+-")
    return len(text) if text.isdigit() else 0


def _ambiguous(
    gold: Column,
    cells: Sequence[Cell],
    plain: Sequence[Cell],
    odd: Sequence[tuple[Cell, tuple[str, str]]],
    long: Sequence[Cell],
) -> RequestError:
    """Nearly all cells are numbers, but some are written so that they are read as words."""
    where = {read_cell(value).text: row for row, value in reversed([*enumerate(gold.values)])}

    def shown(cell: Cell) -> str:
        return f"{cell.text!r} ({gold.place(where[cell.text])})"

    if odd:
        cell, (what, number) = odd[0]
        return RequestError(
            f"Column {gold.name!r}: {len(odd)} of {len(cells)} different labels are numbers with "
            f"{what}, such as {', '.join(shown(c) for c, _ in odd[:3])}. To predict the number, "
            f"write {number} for {cell.text!r}; to take them as names of classes, say --kind "
            "classification."
        )
    if long or any(cell.code for cell in cells):
        some = ", ".join(shown(cell) for cell in [c for c in cells if c.code or c in long][:3])
        return RequestError(
            f"Column {gold.name!r} has {len(cells)} different numbers, some written as codes or "
            f"identifiers are: {some}. If they are a scale, say --kind regression; if they name "
            "classes, say --kind classification; else name another column with --label."
        )
    words = ", ".join(shown(cell) for cell in [c for c in cells if c not in plain][:3])
    return RequestError(
        f"Column {gold.name!r} holds {len(plain)} different numbers, and {words}. If that marks "
        "rows without a label, remove them; if every value is the name of a class, say --kind "
        "classification."
    )


def _names(gold: Column) -> list[str]:
    """Names of the classes: as the file declares them; numbers by size; names by alphabet.

    Whole numbers are called so however they are written; where one cell is something else, all are
    called as they are written, so that 1.1 and 1.10 may be two versions.
    """
    if gold.names:
        return list(gold.names)
    cells = _distinct_cells(gold)
    if all(cell.whole for cell in cells):
        return [str(number) for number in sorted({int(cell.name) for cell in cells})]
    return _sorted({cell.text for cell in map(read_cell, gold.distinct)})


def _sorted(names: Any) -> list[str]:
    """By number where all are one, else by alphabet.

    A name that starts with "not" or "non" comes first, because F1 looks at the second of two.
    """
    names = list(names)
    numbers = [read_cell(name).number for name in names]
    if all(number is not None for number in numbers):
        return sorted(names, key=lambda name: (read_cell(name).number or 0, name))
    return sorted(names, key=lambda name: (not name.lower().startswith(("not", "non")), name))


def hidden_files(golds: Sequence[Column]) -> list[int]:
    """Numbers of the files whose labels are all −1, where those of the first file are not."""
    (gold, *more) = golds
    if more or len(gold.sizes) < 2:
        return []
    starts = [sum(gold.sizes[:place]) for place in range(len(gold.sizes))]
    hidden = [
        all(read_cell(value).name == "-1" for value in gold.values[start : start + size])
        for start, size in zip(starts, gold.sizes, strict=True)
    ]
    others = [value for value, size in zip(hidden, gold.sizes, strict=True) for _ in range(size)]
    elsewhere = any(
        read_cell(value).name == "-1"
        for value, is_hidden in zip(gold.values, others, strict=True)
        if not is_hidden
    )
    return [] if elsewhere or hidden[0] else [place for place, yes in enumerate(hidden) if yes]


@dataclass(frozen=True)
class LabelCount:
    """The labels of a draft as loading reads them.

    Attributes:
        seen: label → its rows.
        missing: rows without a label.
        findings: remarks about the labels.
    """

    seen: Mapping[str, Seen]
    missing: Sequence[int]
    findings: Sequence[Finding]


def count_labels(golds: Sequence[Column], spec: TaskSpec) -> LabelCount:
    """Read every label as loading will, by the reader of the drafted task.

    Raises:
        RequestError: a cell that loading will refuse, other than one without a label.
    """
    import pyarrow as pa

    form = spec.label_form
    check = KINDS.get(spec.kind).check_labels
    missing: list[int] = []
    rows: dict[str, list[int]] = {}
    values: dict[str, Any] = {}
    for row, cells in enumerate(zip(*(gold.values for gold in golds), strict=True)):
        value = dict(zip(form.columns, cells, strict=True)) if form.columns else cells[0]
        blank_set = form.separator and isinstance(value, str) and not value.strip()
        if not blank_set and read_cell(value).missing:
            missing.append(row)
            continue
        key = json.dumps(value, default=str)
        rows.setdefault(key, []).append(row)
        values.setdefault(key, value)
    seen: dict[str, Seen] = {}
    where = f"Column {golds[0].name!r}" if len(golds) == 1 else "The columns of labels"
    for key, value in values.items():
        if spec.kind == "regression" and read_cell(value).number is not None:
            continue
        first = rows[key][0]
        column = LabelColumn(
            pa.chunked_array([pa.array([value])]),
            golds[0].names,
            where,
            lambda _, first=first: golds[0].place(first),  # type: ignore[misc]
            form,
        )
        try:
            (found,) = check(spec, column)
        except RequestError as error:  # one row was looked at
            raise RequestError(str(error).replace(" (1 such rows)", "")) from error
        places = [golds[0].place(row) for row in rows[key][:3]]
        if spec.kind == "classification":
            names = [spec.labels[int(found)]]
        else:
            names = [name for name, on in zip(spec.labels, found, strict=True) if on]
        for name in names:
            seen.setdefault(name, Seen()).add(len(rows[key]), places)
    if spec.kind == "regression":
        written = {
            value: Seen(len(rows[key]), [golds[0].place(row) for row in rows[key][:3]])
            for key, value in values.items()
            if isinstance(value, str)
        }
        return LabelCount({}, missing, tuple(number_remarks(written)))
    # The forms of 0 and 1 hold no names that somebody wrote into a row.
    findings = () if form.indicators else tuple(label_remarks(seen, spec.kind))
    return LabelCount(seen, missing, findings)
