"""``mtl.report --published [TABLE]``: the tables of papers, as the package holds them."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import Any


def add_options(parser: Any) -> None:
    """Add the options to the parser of ``mtl.report``."""
    parser.add_argument(
        "--published",
        nargs="?",
        const="",
        metavar="TABLE",
        help="show a table that a paper prints; without a name, list them",
    )


def show(options: Namespace) -> int:
    """Print one published table, or the list of all."""
    from mtl.errors import RequestError
    from mtl.report.published import list_published, load_published, render_published
    from mtl.words import printable_lines

    for name in ("suite", "target", "seeds", "where", "heatmap", "entry", "errors", "pick"):
        if getattr(options, name, None):
            raise RequestError(f"--published shows what papers print: --{name} says nothing of it.")
    if options.published:
        table = load_published(options.published)
        if options.json:
            print(json.dumps({"command": "report", "published": table.to_dict()}))
        else:
            print(printable_lines(render_published(table)))
        return 0
    tables = [load_published(name) for name in list_published()]
    if options.json:
        lines = [
            {"name": t.name, "title": t.title, "base": t.base, "rows": len(t.rows)} for t in tables
        ]
        print(json.dumps({"command": "report", "published": lines}))
        return 0
    from tabulate import tabulate

    head = ["table", "what", "base", "protocol", "rows"]
    print(
        tabulate(
            [[t.name, t.title, t.base, t.protocol or "–", len(t.rows)] for t in tables],
            headers=head,
            disable_numparse=True,
        )
    )
    return 0
