"""Ways to write one label: what makes two names look the same, and numbers written as words."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from unicodedata import category, normalize

from mtl.tasks.label_cells import Cell, read_cell

_DASHES = dict.fromkeys(map(ord, "‐‑‒–—−"), "-")


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
