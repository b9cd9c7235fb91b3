"""What ``--sources`` asks for where it does not name tasks: ``auto``, ``graph:k=3``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mtl.errors import RequestError

BUDGET = 5
"""Sources that ``auto`` takes at most, unless told otherwise."""


@dataclass(frozen=True)
class SourceRequest:
    """What ``--sources`` asks for.

    Attributes:
        how: ``auto`` or ``graph``.
        budget: sources at most.
        min_gain: least measured or expected transfer, in the metric's unit, or None.
        by: for ``graph``: the kind of evidence or the score to go by, None for the strongest kind.
    """

    how: str
    budget: int = BUDGET
    min_gain: float | None = None
    by: str | None = None


def parse_sources(
    names: Sequence[str], budget: int | None, min_gain: float | None
) -> SourceRequest | None:
    """``auto`` or ``graph:k=3[,by=measured]`` as a request; None for plain names and ``all``.

    Raises:
        RequestError: mixed with names, malformed, or a budget for sources that are named.
    """
    first = names[0] if names else ""
    special = [name for name in names if name == "auto" or name.startswith("graph:")]
    if budget is not None and budget < 1:
        raise RequestError(f"--budget {budget} must be at least 1.")
    if not special:
        if budget is not None or min_gain is not None:
            raise RequestError(
                "--budget and --min-gain say how many sources are picked: use them with --sources "
                "auto or graph:k=3, not with names or 'all'."
            )
        return None
    if first == "auto" and len(names) == 1:
        return SourceRequest("auto", budget or BUDGET, min_gain)
    if not first.startswith("graph:") or len(special) > 1:
        raise RequestError(
            f"--sources {' '.join(names)}: {special[0]!r} picks the sources and stands alone."
        )
    options: dict[str, str] = {}
    for item in (
        part for name in [first.partition(":")[2], *names[1:]] for part in name.split(",")
    ):
        key, equals, value = item.partition("=")
        if key not in {"k", "by"} or not equals or not value or key in options:
            raise RequestError(
                f"--sources {','.join(names)}: {item!r} is not understood; write graph:k=3, or "
                "graph:k=3,by=measured (or reliance, attribution, or the name of a score)."
            )
        options[key] = value
    if not re.fullmatch(r"[1-9][0-9]{0,5}", options.get("k", "")):
        raise RequestError(f"--sources {','.join(names)}: k must be a number of at least 1.")
    if budget is not None:
        raise RequestError("--sources graph:k=N says how many itself; leave out --budget.")
    return SourceRequest("graph", int(options["k"]), min_gain, options.get("by"))
