"""``mtl.methods``: what can be trained and composed, and exact parameter counts."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict, fields
from importlib.util import find_spec
from typing import Any

from mtl.cli.options import Parser


def main(argv: Sequence[str]) -> int:
    parser = Parser(prog="mtl.methods", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("ls", help="methods and compositions with their settings")
    listing.add_argument(
        "--model", help="what of them works on it, and why not the others; also a model type"
    )
    listing.add_argument("--json", action="store_true", help="one line of JSON")
    count = commands.add_parser(
        "count", help="exact trainable parameters, from the real modules; downloads nothing"
    )
    count.add_argument(
        "--method", required=True, help="a method of any stage, or 'all' of stage one"
    )
    count.add_argument("--recipe", help="settings and head of a paper")
    count.add_argument("--model", default="roberta-base", help="known name, folder, or 'demo'")
    count.add_argument("--sources", type=int, default=8, help="K, for compositions")
    count.add_argument("--source-method", default="pfeiffer", help="method of the sources")
    count.add_argument("--tasks", type=int, default=8, help="T, for joint methods")
    count.add_argument("--head", help="count a head, too: two_layer, linear, pooler_linear, …")
    count.add_argument("--labels", type=int, default=2, help="outputs of the head")
    count.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings")
    count.add_argument("--json", action="store_true", help="one line of JSON")
    _add_settings(commands)
    options = parser.parse_args(list(argv))
    if options.command == "settings":
        from mtl.cli.methods_settings import settings

        return settings(options)
    if options.command == "ls" and options.model:
        from mtl.cli.methods_model import works_on

        return works_on(options)
    return _ls(options) if options.command == "ls" else _count(options)


def _add_settings(commands: Any) -> None:
    parser = commands.add_parser(
        "settings", help="what methods train at under each recipe, and who says so"
    )
    parser.add_argument("--suite", help="only the suite's recipe, on its tasks")
    parser.add_argument("--recipe", nargs="+", help="only these recipes, or 'none' [all]")
    parser.add_argument("--method", nargs="+", help="only these methods [all]")
    parser.add_argument("--task", nargs="+", help="exceptions of these tasks [all in the recipe]")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one line of JSON")
    form.add_argument("--markdown", action="store_true", help="tables in Markdown")


def _ls(options: Namespace) -> int:
    from mtl.compose import COMPOSITIONS
    from mtl.joint import JOINT
    from mtl.methods import METHODS, UNAVAILABLE
    from mtl.registry import PluginError, plugin

    rows: list[dict[str, Any]] = []
    missing = [asdict(item) for item in UNAVAILABLE if item.name not in METHODS]
    stages: tuple[tuple[int | str, Any, str], ...] = (
        (1, METHODS, "mtl.methods"),
        (2, COMPOSITIONS, "mtl.compositions"),
        ("joint", JOINT, "mtl.joint"),
    )
    for stage, registry, group in stages:
        for name in registry.names():
            package = plugin(group, name)
            try:
                item: Any = registry.get(name)
            except PluginError as error:
                missing.append({"name": name, "reason": str(error), "citation": str(package)})
                continue
            defaults = {field.name: field.default for field in fields(item.settings)}
            row = {
                "method": name,
                "stage": stage,
                "summary": item.summary,
                "settings": {**defaults, **item.defaults},
                "citation": item.citation,
                "from": str(package) if package else None,
            }
            if stage == 1:
                row |= {"composes": item.composes or None, "refusal": item.refusal or None}
                row["package"] = item.package or None
            rows.append(row)
    if options.json:
        print(json.dumps({"methods": rows, "unavailable": missing}))
        return 0
    for row in rows:
        settings = " ".join(f"{key}={value}" for key, value in row["settings"].items())
        stage = f"stage {row['stage']}" if row["stage"] != "joint" else "joint"
        print(f"{row['method']}  ({stage}): {row['summary']}")
        print(f"    --set {settings}" if settings else "    no settings")
        if row.get("package"):
            print(f"    needs {row['package']}: pip install {row['package']}")
        if row.get("refusal"):
            print(f"    no source of stage two: {row['refusal']}")
        print(f"    {row['citation']}")
        if row["from"]:
            print(f"    from package {row['from']}")
    for gone in missing:
        why = (
            "cannot be used"
            if gone["name"] in {*METHODS, *COMPOSITIONS}
            else "cannot be reproduced"
        )
        print(f"{gone['name']}  ({why}): {gone['reason']}")
        print(f"    {gone['citation']}")
    return 0


def _count(options: Namespace) -> int:
    from mtl.backbone.arch import supported
    from mtl.backbone.shapes import type_of
    from mtl.compose import COMPOSITIONS
    from mtl.errors import RequestError, unknown
    from mtl.joint import JOINT
    from mtl.methods import METHODS, find_method
    from mtl.runs.settings import parse_set
    from mtl.tasks import load_recipe

    if min(options.sources, options.labels, options.tasks) < 1:
        raise RequestError("--sources, --labels and --tasks must be at least 1.")
    values = parse_set(options.set)
    recipe = load_recipe(options.recipe) if options.recipe else None
    if options.method == "all":
        refused = supported(type_of(options.model), repr(options.model)).refuses
        methods = {k: v for k, v in METHODS.usable().items() if k not in refused}
        for name in METHODS:
            if name in refused:
                print(f"{name}: not counted, {refused[name]}", file=sys.stderr)
        names = [name for name, method in methods.items() if not _lacking(method.package)]
        for name in [name for name in methods if name not in names]:
            package = methods[name].package
            print(f"{name}: not counted, needs pip install {package}", file=sys.stderr)
        if recipe is not None:
            for name in [name for name in names if not recipe.names(name)]:
                print(f"{name}: not counted, recipe {recipe.name} has no settings", file=sys.stderr)
                names.remove(name)
        found = {}
        for name in names:
            try:
                found[name] = _count_one(name, options, recipe, values)
            except RequestError as error:
                if values:  # which may be wrong
                    raise
                print(f"{name}: not counted, {error}", file=sys.stderr)
    elif options.method in COMPOSITIONS:
        found = {options.method: _count_composition(options, recipe, values)}
    elif options.method in JOINT:
        found = {options.method: _count_joint(options, recipe, values)}
    elif options.method in METHODS:
        found = {options.method: _count_one(options.method, options, recipe, values)}
    else:
        find_method(options.method)  # says why a method that papers name is not there
        raise unknown("method", options.method, [*METHODS, *COMPOSITIONS, *JOINT])
    if options.json:
        rows = [{"name": name, **count.to_dict()} for name, count in found.items()]
        print(
            json.dumps(
                {"methods": rows} if options.method == "all" else found[options.method].to_dict()
            )
        )
    elif options.method == "all":
        _print_counts(found)
    else:
        for part, number in found[options.method].to_dict().items():
            print(f"{part:<13}{number:>15,}" if part != "percent" else f"{part:<13}{number:>15.4f}")
    return 0


def _lacking(package: str) -> bool:
    """Whether the optional ``package`` is not installed."""
    return bool(package) and find_spec(package) is None


def _count_one(name: str, options: Namespace, recipe: Any, values: dict[str, Any]) -> Any:
    """Count a stage-one method; with 'all', settings that a method has not are not its."""
    from mtl.methods import count_settings, find_method
    from mtl.runs.settings import Overrides, resolve_settings

    method = find_method(name)
    if options.method == "all":
        known = {field.name for field in fields(method.settings)}
        values = {key: value for key, value in values.items() if key in known}
    layers = recipe.layers(name, "") if recipe else []
    settings, run = resolve_settings(method, layers, Overrides(values))
    head = options.head or (run.head if recipe else None)
    return count_settings(method, settings, options.model, head=head, labels=options.labels)


def _count_composition(options: Namespace, recipe: Any, values: dict[str, Any]) -> Any:
    """Count a composition; a recipe says of what size its sources are, too."""
    from mtl.compose import COMPOSITIONS, count_composition
    from mtl.methods import find_method
    from mtl.runs.settings import Overrides, resolve_settings

    def settings(chosen: Any, asked: dict[str, Any]) -> tuple[Any, Any]:
        layers = recipe.layers(chosen.name, "") if recipe else []
        return resolve_settings(chosen, layers, Overrides(asked))

    own, run = settings(COMPOSITIONS.get(options.method), values)
    sources, _ = settings(find_method(options.source_method), {})
    return count_composition(
        options.method,
        options.model,
        sources=options.sources,
        values=asdict(own),
        source_method=options.source_method,
        source_settings=sources,
        head=options.head or (run.head if recipe else None),
        labels=options.labels,
    )


def _count_joint(options: Namespace, recipe: Any, values: dict[str, Any]) -> Any:
    from mtl.joint import JOINT, count_joint, resolve_joint
    from mtl.runs.settings import Overrides
    from mtl.tasks import load_recipe

    method = JOINT.get(options.method)
    settings, run = resolve_joint(method, recipe or load_recipe("none"), Overrides(values))
    head = options.head or (run.head if recipe else None)
    return count_joint(
        method.name,
        settings,
        options.model,
        tasks=options.tasks,
        head=head,
        labels=options.labels,
    )


def _print_counts(found: dict[str, Any]) -> None:
    from tabulate import tabulate

    rows = []
    for name, count in found.items():
        row = count.to_dict()
        numbers = [f"{row[key]:,}" for key in row if key != "percent"]
        rows.append([name, *numbers, f"{row['percent']:.4f}"])
    headers = ["", *(key for key in row if key != "percent"), "percent"]
    print(tabulate(rows, headers=headers, disable_numparse=True, colalign=["left"] + ["right"] * 7))
