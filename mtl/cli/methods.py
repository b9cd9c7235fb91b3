"""``mtl.methods``: what can be trained and composed, and exact parameter counts."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from mtl.cli.options import PlainParser


def main(argv: Sequence[str]) -> int:
    parser = PlainParser(prog="mtl.methods", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("ls", help="methods and compositions with their settings")
    listing.add_argument("--json", action="store_true", help="one line of JSON")
    count = commands.add_parser(
        "count", help="exact trainable parameters, from the real modules; downloads nothing"
    )
    count.add_argument("--method", required=True, help="a method or composition")
    count.add_argument("--model", default="roberta-base", help="known name, folder, or 'demo'")
    count.add_argument("--sources", type=int, default=8, help="K, for compositions")
    count.add_argument("--source-method", default="pfeiffer", help="method of the sources")
    count.add_argument("--head", help="count a head, too: two_layer or pooler_linear")
    count.add_argument("--labels", type=int, default=2, help="outputs of the head")
    count.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings")
    count.add_argument("--json", action="store_true", help="one line of JSON")
    options = parser.parse_args(list(argv))
    return _ls(options) if options.command == "ls" else _count(options)


def _ls(options: Namespace) -> int:
    from mtl.compose import COMPOSITIONS
    from mtl.methods import METHODS

    rows: list[dict[str, Any]] = []
    for stage, registry in ((1, METHODS), (2, COMPOSITIONS)):
        for name in registry.names():
            item: Any = registry.get(name)
            defaults = {field.name: field.default for field in fields(item.settings)}
            defaults.update(getattr(item, "defaults", {}))
            rows.append(
                {
                    "method": name,
                    "stage": stage,
                    "summary": item.summary,
                    "settings": defaults,
                    "citation": item.citation,
                }
            )
    if options.json:
        print(json.dumps({"methods": rows}))
        return 0
    for row in rows:
        settings = " ".join(f"{key}={value}" for key, value in row["settings"].items())
        print(f"{row['method']}  (stage {row['stage']}): {row['summary']}")
        print(f"    --set {settings}")
        print(f"    {row['citation']}")
    return 0


def _count(options: Namespace) -> int:
    from mtl.compose import COMPOSITIONS, count_composition
    from mtl.errors import RequestError, unknown
    from mtl.methods import METHODS, count_method
    from mtl.train.settings import parse_set

    if options.sources < 1 or options.labels < 1:
        raise RequestError("--sources and --labels must be at least 1.")
    values = parse_set(options.set)
    if options.method in METHODS:
        count = count_method(
            options.method, options.model, values=values, head=options.head, labels=options.labels
        )
    elif options.method in COMPOSITIONS:
        count = count_composition(
            options.method,
            options.model,
            sources=options.sources,
            values=values,
            source_method=options.source_method,
            head=options.head,
            labels=options.labels,
        )
    else:
        raise unknown("method", options.method, [*METHODS, *COMPOSITIONS])
    if options.json:
        print(json.dumps(count.to_dict()))
    else:
        for part, number in count.to_dict().items():
            print(f"{part:<11}{number:>15,}")
    return 0
