"""What a check finds: a sentence, how many rows it is about, and where some of them stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

SHOWN = 3
"""Examples per finding."""
_LONGEST = 160


@dataclass(frozen=True)
class Example:
    """A row that shows a finding.

    Attributes:
        place: file and line, or split and row.
        text: what stands there, cut to a line.
        other: where the other row stands, of a pair.
        similarity: of a pair that is nearly equal.
    """

    place: str
    text: str = ""
    other: str = ""
    similarity: float | None = None

    def __str__(self) -> str:
        pair = f" = {self.other}" if self.other else ""
        if self.other and self.similarity is not None:
            pair = f" ≈ {self.other} ({self.similarity:.2f})"
        return f"{self.place}{pair}" + (f": {self.text}" if self.text else "")


@dataclass(frozen=True)
class Finding:
    """Something about a task's data.

    Attributes:
        check: which check found it, for machines: ``leak-exact``, ``unknown-label``, …
        level: ``problem`` (it must be mended) or ``remark`` (it is worth a look).
        text: a sentence without a full stop.
        split: where, if in one.
        count: rows that it is about; ``of`` so many.
    """

    check: str
    level: str
    text: str
    split: str = ""
    count: int = 0
    of: int = 0
    examples: Sequence[Example] = field(default_factory=tuple)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "examples": [asdict(example) for example in self.examples]}


def short(texts: Sequence[str]) -> str:
    """Texts of a row in one line."""
    line = " | ".join(" ".join(text.split()) for text in texts)
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


def share(count: int, of: int) -> str:
    """``12 of 400 rows (3.0 %)``."""
    return f"{count:,} of {of:,} rows ({count / max(of, 1):.1%})"
