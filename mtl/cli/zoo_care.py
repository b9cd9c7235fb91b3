"""``mtl.zoo gc``, ``diff`` and ``migrate``: looking after a zoo."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.errors import RequestError
from mtl.files import finite
from mtl.words import counted

if TYPE_CHECKING:
    from mtl.zoo import Zoo
    from mtl.zoo.garbage import Garbage

WHAT = ("zoo", "runs", "caches")
SHOWN = 40
"""Longest value of a setting in the table of ``diff``."""


def add_commands(add: Callable[[str, str], Any]) -> None:
    """Add the subcommands to the parser of ``mtl.zoo``."""
    gc = add("gc", "find what nothing needs: leftovers, run folders, caches; --yes removes it")
    gc.add_argument("--yes", action="store_true", help="remove it; without this, only say it")
    gc.add_argument("--what", nargs="+", choices=WHAT, default=list(WHAT), help="[all of them]")
    gc.add_argument("--runs", help="folder of run folders [MTL_RUNS, ./runs]")
    gc.add_argument("--days", type=float, default=30.0, help="age of unused caches [30]")
    gc.add_argument(
        "--interrupted", action="store_true", help="also runs that could still go on: give them up"
    )
    diff = add("diff", "compare two entries: settings, metrics, distance of the weights per layer")
    diff.add_argument("a", help="reference, its last parts, or the start of its digest")
    diff.add_argument("b", help="likewise")
    migrate = add("migrate", "rewrite manifests of older schema versions; --yes does it")
    migrate.add_argument("--yes", action="store_true", help="do it; without this, only say it")


def gc(zoo: Zoo, options: Namespace) -> int:
    """Name, or remove, what nothing needs."""
    from mtl.zoo.garbage import remove_garbage, zoo_garbage

    if not options.days >= 0:
        raise RequestError(f"--days {options.days} must not be negative.")
    found: list[Garbage] = list(zoo_garbage(zoo)) if "zoo" in options.what else []
    if {"runs", "caches"} & set(options.what):
        from mtl.engine.folder import runs_folder
        from mtl.runs import open_workspace
        from mtl.runs.tidy import cache_garbage, run_garbage

        if "runs" in options.what:
            runs = runs_folder(options.runs)
            found += run_garbage(runs, zoo, interrupted=options.interrupted)
        if "caches" in options.what:
            found += cache_garbage(open_workspace(zoo=zoo.root).cache, options.days)
    removed = []
    if options.yes:
        for item in found:
            if item.kind in {"run", "cache"}:
                from mtl.runs.tidy import remove

                gone = remove(item)
            else:
                gone = remove_garbage(zoo, item)
            if gone:
                removed.append(item)
    if options.json:
        print(
            json.dumps(
                {
                    "zoo": str(zoo.root),
                    "dry_run": not options.yes,
                    "found": [item.to_dict() for item in found],
                    "removed": [item.path for item in removed],
                }
            )
        )
        return 0
    from tabulate import tabulate

    from mtl.words import printable

    if found:
        rows = [
            [i.kind, _size(i.bytes), printable(_short(i.path, zoo)), printable(i.reason)]
            for i in found
        ]
        print(tabulate(rows, headers=["what", "size", "where", "why"], disable_numparse=True))
    total = _size(sum(item.bytes for item in (removed if options.yes else found)))
    if options.yes:
        print(f"removed {len(removed)} of {len(found)}, {total}")
    else:
        print(f"{len(found)} to remove, {total}. Nothing was removed; --yes does it.")
    return 0


def diff(zoo: Zoo, options: Namespace) -> int:
    """Print in what two entries differ."""
    from mtl.zoo.caveats import MARK, footnotes
    from mtl.zoo.diff import diff as compare
    from mtl.zoo.twins import NEAR

    one, other = zoo.get(options.a), zoo.get(options.b)
    with zoo.reading(one, other):
        found = compare(one, other)
    whole = found["weights"]["all"]
    near = bool(whole and not found["weights"]["only"] and whole["relative"] < NEAR)
    if options.json:
        print(json.dumps(finite({**found, "nearly_same_weights": near})))
        return 0
    from tabulate import tabulate

    print(f"a  {one.ref}  {one.digest[:12]}\nb  {other.ref}  {other.digest[:12]}\n")
    settings = [[_cell(key), _cell(a), _cell(b)] for key, (a, b) in found["settings"].items()]
    if settings:
        print(tabulate(settings, headers=["setting", "a", "b"], disable_numparse=True) + "\n")
    metrics = [
        [
            _cell(key) + (f" {MARK}" if item["caveat"] else ""),
            *(_number(item[part]) for part in ("a", "b", "difference", "stderr")),
        ]
        for key, item in found["metrics"].items()
    ]
    if metrics:
        headers = ["metric", "a", "b", "b − a", "se"]
        doubts = footnotes((key, item["caveat"]) for key, item in found["metrics"].items())
        print(tabulate(metrics, headers=headers, disable_numparse=True) + doubts + "\n")
    answers = found["predictions"]
    if answers:
        print(f"{answers['equal']:.2%} of {answers['n']} test predictions are equal\n")
    groups = [*found["weights"]["groups"], *([whole] if whole else [])]
    if groups:
        rows = [
            [
                group["group"],
                f"{group['values']:,}",
                f"{group['relative']:.4g}",
                _number(group["cosine"]),
                f"{group['largest']:.3g}",
            ]
            for group in groups
        ]
        headers = ["weights", "values", "‖a−b‖ / mean ‖·‖", "cosine", "max |a−b|"]
        print(tabulate(rows, headers=headers, disable_numparse=True))
    only = found["weights"]["only"]
    if only:
        first = _cell(next(iter(only)))
        if len(only) == 1:
            print(f"1 tensor has no partner of its shape: {first}")
        else:
            print(f"{len(only)} tensors have no partner of their shape, the first {first}")
    if found["same_digest"]:
        print("Both are the same entry.")
    elif near:
        print("note: the weights are nearly the same; one of the two may be enough.")
    return 0


def migrate(zoo: Zoo, options: Namespace) -> int:
    """Name, or rewrite, the manifests of older schema versions."""
    from tqdm import tqdm

    from mtl.zoo.manifest import SCHEMA_VERSION

    old = [s for s in zoo.summaries() if s.schema_version < SCHEMA_VERSION]
    done = []
    if options.yes:
        for entry in tqdm(
            zoo.read(old), desc="migrate", unit="entry", leave=False, disable=None, file=sys.stderr
        ):
            done.append(zoo.migrate(entry).ref)
    if options.json:
        rows = [{"ref": s.ref, "from": s.schema_version, "to": SCHEMA_VERSION} for s in old]
        print(json.dumps({"zoo": str(zoo.root), "old": rows, "migrated": done}))
        return 0
    for summary in old:
        what = "rewritten" if options.yes else "to rewrite"
        print(f"{summary.ref}: schema {summary.schema_version} → {SCHEMA_VERSION}, {what}")
    if options.yes:
        print(f"{counted(len(done), 'manifest')} rewritten; digests are as they were.")
    else:
        print(f"{counted(len(old), 'manifest')} to rewrite. Nothing was changed; --yes does it.")
    return 0


def _short(path: str, zoo: Zoo) -> str:
    place = Path(path)
    return zoo.ref(place) if place.is_relative_to(zoo.root) else path


def _size(count: int) -> str:
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def _cell(value: Any) -> str:
    from mtl.words import printable

    text = "–" if value is None else printable(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
