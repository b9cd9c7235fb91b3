"""What a label cell says: the one reader behind drafting, checking and loading.

A cell is what stands in one row of a label column: text of a CSV file, or a value of JSON or
parquet. Files of numbers write them in many ways, so that "the same label" needs a rule:

======================= ===========================================================================
cell                    is read as
======================= ===========================================================================
empty, blank, null,     no label. ``nan`` is what programs write for a missing number; who has a
NaN, ``nan``            class of that name lists it in ``labels``
``1`` ``1.0`` ``1e0``   the number 1; as a class it is called ``1``, however it is written
``+1``
``0.5`` ``-3.25``       a number with a fraction; as a class it is called as it is written
``007`` ``01``          a code: the number 7 in a regression, but as a class not the same as ``7``
                        (postal codes, ICD codes and months lose their zeros in no other place)
20-digit ids            whole numbers, compared digit by digit, never as floats
``true`` ``false``      of JSON and parquet: truth values. Of CSV: the words as they are written
(not in quotes)
``１`` ``1_0`` ``−1``   text. Digits of other alphabets, underscores and U+2212 are no numbers;
``1,5`` ``50%`` ``inf`` :mod:`mtl.checks.label_remarks` says which number was probably meant
anything else           text without surrounding space
======================= ===========================================================================

What ``-1`` is depends on the task: a class where the task's labels hold it, else the mark of
official test data for a hidden label, which is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from math import isfinite, isnan
from typing import Any

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_CODE = re.compile(r"[+-]?0[0-9]")
_LONGEST_NUMBER = 64  # characters; what is longer is a text of digits
EXACT_DIGITS = 15
"""Digits that every float keeps; a whole number with more of them is an identifier."""


@dataclass(frozen=True)
class Cell:
    """A label cell as it is read.

    Attributes:
        text: as written, without surrounding space; of numbers of JSON and parquet their shortest
            decimal form.
        number: its value, exactly; None of what is no number.
        missing: whether there is no label.
        code: whether it is a number that begins with a zero too many, such as ``007``.
        truth: the value of a ``true`` or ``false`` that is no text.
        strange: what stands there if it is of no type that a label can have.
    """

    text: str
    number: Decimal | None = None
    missing: bool = False
    code: bool = False
    truth: bool | None = None
    strange: str = ""

    @property
    def whole(self) -> bool:
        """Whether it is a whole number (1.0 is one, 007 is none)."""
        return (
            self.number is not None
            and not self.code
            and self.number == self.number.to_integral_value()
        )

    @property
    def name(self) -> str:
        """What a class of this label is called."""
        return str(int(self.number)) if self.number is not None and self.whole else self.text

    @property
    def on(self) -> bool | None:
        """The value as one of 0 and 1, None if it is neither."""
        if self.truth is not None:
            return self.truth
        if self.number in (0, 1) and not self.code:
            return self.number == 1
        return {"true": True, "false": False}.get(self.text[:6].lower())


def read_cell(value: Any) -> Cell:
    """Read one label cell, see the table above."""
    if value is None:
        return Cell("", missing=True)
    if isinstance(value, bool):
        return Cell(str(value).lower(), truth=value)
    if isinstance(value, str):
        text = value.strip()
        if not text or (len(text) == 3 and text.lower() == "nan"):
            return Cell(text, missing=True)
        if len(text) <= _LONGEST_NUMBER and _NUMBER.fullmatch(text):
            return Cell(text, Decimal(text), code=bool(_CODE.match(text)))
        return Cell(text)
    if isinstance(value, int):
        return Cell(str(value), Decimal(value))
    if isinstance(value, float):
        if isnan(value):
            return Cell("nan", missing=True)
        if not isfinite(value):
            return Cell(str(value))
        number = Decimal(repr(value))
        short = value.is_integer() and abs(value) < 10**EXACT_DIGITS
        return Cell(str(int(number)) if short else repr(value), number)
    if isinstance(value, Decimal):
        return read_cell(str(value))
    if isinstance(value, dict | list | bytes):
        what = {dict: "an object", list: "a list"}.get(type(value), "bytes")
        return Cell(_cut(value), strange=what)
    return Cell(_cut(value), strange=f"a {type(value).__name__}")


def read_list(text: str) -> list[Any] | None:
    """A list that somebody's program wrote into a cell: ``"['a', 'b']"``, ``"[1 0 0]"``, ``"[]"``.

    JSON, Python and numpy write lists differently; all three are read, of one level only.

    Returns:
        The items as text (to be read by :func:`read_cell`), or None where the text is no list. A
        list that numpy shortened (``[0 0 ... 1]``) holds an item ``...``, which is no label.
    """
    text = text.strip()
    if len(text) < 2 or text[0] + text[-1] not in ("[]", "()", "{}"):
        return None
    inner = text[1:-1].strip()
    # Tuples and sets hold quoted text or numbers; "(sic)" is a word, and {"a": 1} is an object.
    if text[0] != "[" and (inner[:1] not in "'\"0123456789" or (text[0] == "{" and ":" in inner)):
        return None
    items = []
    place = 0
    # Between items without quotes, commas decide where there are any, else spaces.
    bare = r"[^,'\"\[\]]+" if "," in re.sub(_QUOTED, "", inner) else r"[^\s,'\"\[\]]+"
    item = re.compile(rf"\s*(?:({_QUOTED})|({bare}))\s*(?:,|(?=[\s'\"])|$|(?<=\s))")
    while place < len(inner):
        found = item.match(inner, place)
        if found is None:
            return None
        quoted, plain = found.groups()
        items.append(plain.strip() if quoted is None else re.sub(r"\\(.)", r"\1", quoted[1:-1]))
        place = found.end()
    return items


_QUOTED = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""


def _cut(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"
