"""What a check of the zoo finds."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Problem:
    """One finding.

    Attributes:
        kind: ``manifest``, ``digest``, ``missing``, ``changed``, ``tensors``, ``stray``,
            ``pickle``, ``link``, ``name``, ``parent``, ``leftover`` or ``unreadable``.
        path: where, a posix path relative to the root of the zoo.
        message: what is wrong, with what was expected and found.
        remedy: what to do about it.
    """

    kind: str
    path: str
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message} {self.remedy}".rstrip()

    def to_dict(self) -> dict[str, str]:
        """The four fields, for ``--json``."""
        return asdict(self)
