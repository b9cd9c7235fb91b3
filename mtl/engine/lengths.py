"""Lengths of training as users write them: a bare number, or a number with its unit."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

_WRITTEN = re.compile(r"(\d+)\s*([a-z]+)")


def read_length(
    value: Any, units: Sequence[str], bare: str, kind: type[int] | type[float]
) -> tuple[float, str]:
    """``"20 epochs"`` → (20, ``"epochs"``); a bare number counts ``bare`` and is a ``kind``.

    Args:
        units: plural words that may be written; their singular is read, too.

    Raises:
        ValueError: neither; says what would be.
    """
    if isinstance(value, str):
        written = _WRITTEN.fullmatch(value.strip().lower())
        unit = f"{written[2].removesuffix('s')}s" if written else ""
        if written and unit in units:
            number = int(written[1])
            return (number, unit) if number and unit != bare else (kind(number), bare)
    try:
        plain = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        plain = math.nan
    if not math.isfinite(plain) or kind(plain) != plain:
        whole = "a whole number" if kind is int else "a number"
        spoken = " or ".join(f"'20 {unit}'" for unit in units if unit != bare)
        raise ValueError(f"must be {whole} ({bare}) or {spoken}")
    return kind(plain), bare


def write_length(number: float, unit: str, bare: str) -> float | str:
    """What :func:`read_length` gave, as settings record it: one form for one length."""
    return number if unit == bare else f"{number} {unit}"
