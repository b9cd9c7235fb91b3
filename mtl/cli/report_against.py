"""``mtl.report --against TABLE``: the runs of a zoo beside a published table."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mtl.report.published import PublishedTable
    from mtl.zoo import Entry


def asked(options: Namespace) -> PublishedTable | None:
    """The published table that ``--against`` names, None where it names none.

    Raises:
        RequestError: there is no such table, or an option that says nothing of it.
    """
    if not options.against:
        return None
    from mtl.errors import RequestError
    from mtl.report.published import load_published

    for name in ("heatmap", "curve", "method", "entry", "ensemble", "pick"):
        if name == "pick" and options.html:
            continue  # of the page's results; cells of the table choose on dev anyway
        if getattr(options, name, None):
            raise RequestError(
                f"--against {options.against} compares with a published table: --{name} says "
                "nothing of it."
            )
    return load_published(options.against)


def show(options: Namespace, table: PublishedTable, entries: Sequence[Entry]) -> int:
    """Print the comparison of what the zoo has with a published table."""
    from mtl.report.against import compare
    from mtl.report.against_text import render_against
    from mtl.words import printable_lines

    found = compare(table, entries)
    if options.json:
        print(json.dumps({"command": "report", "against": found.to_dict()}))
    else:
        print(printable_lines(render_against(found)))
    return 0
