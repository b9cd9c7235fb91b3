"""``mtl.report --variance``: how much of the spread comes from seeds, few-shot draws, test rows."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mtl.zoo import Entry


def show(options: Namespace, entries: Sequence[Entry]) -> int:
    """Print the splits.

    Raises:
        RequestError: no two runs differ in seeds and draws alone.
    """
    from mtl.errors import RequestError
    from mtl.report.variance import render_splits, variance_splits
    from mtl.words import printable_lines

    found, notes = variance_splits(entries)
    if not found:
        why = "".join(f"\n  {note}" for note in notes)
        raise RequestError(
            "--variance needs runs of one task, method and settings that differ in seeds of "
            "sources, their own seed or few-shot draws; among the entries there are none."
            f"{why}"
        )
    if options.json:
        told = {"variance": [item.to_dict() for item in found], "left_out": notes}
        print(json.dumps({"command": "report", **told}))
    else:
        print(printable_lines(render_splits(found, notes)))
    return 0
