"""``mtl.zoo``: list, show, check, remove, push and pull entries of the zoo."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mtl.cli import hub, zoo_verify
from mtl.cli.options import PlainParser

if TYPE_CHECKING:
    from mtl.zoo import Entry, Zoo

SORTS = ("ref", "metric", "created")


def main(argv: Sequence[str]) -> int:
    parser = PlainParser(prog="mtl.zoo", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    ls = _add(commands, "ls", "list entries")
    ls.add_argument("--task", help="task id or name")
    ls.add_argument("--method", help="method or composition")
    ls.add_argument("--base", help="id of the base, or 8 digits or more of its fingerprint")
    ls.add_argument("--kind", choices=("adapter", "composition", "joint"))
    ls.add_argument("--sort", choices=SORTS, default="ref", help="metric: best first, by task")
    show = _add(commands, "show", "everything about one entry")
    show.add_argument("ref", help="reference, its last parts, or the start of its digest")
    fsck = _add(commands, "fsck", "check every file of every entry")
    fsck.add_argument("--fix", action="store_true", help="remove what killed writers left behind")
    rm = _add(commands, "rm", "remove entries; refused while a composition needs one")
    rm.add_argument("ref", nargs="+", help="reference, its last parts, or the start of its digest")
    rm.add_argument("--force", action="store_true", help="even if a composition needs it")
    zoo_verify.add_verify(lambda name, text: _add(commands, name, text))
    remote = hub.add_commands(lambda name, text: _add(commands, name, text))
    options, rest = parser.parse_known_args(list(argv))
    hub.take(parser, options, rest)

    from mtl.zoo import open_zoo

    zoo = open_zoo(options.zoo)
    run = {
        "ls": _ls,
        "show": _show,
        "fsck": _fsck,
        "rm": _rm,
        "verify": zoo_verify.verify,
        **remote,
    }[options.command]
    return run(zoo, options)


def _add(commands: Any, name: str, text: str) -> Any:
    parser = commands.add_parser(name, help=text, description=text)
    parser.add_argument("--zoo", help="folder of the zoo [MTL_ZOO, ./adapters_zoo]")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    return parser


def _ls(zoo: Zoo, options: Namespace) -> int:
    entries = zoo.entries(
        kind=options.kind, task=options.task, method=options.method, base=options.base
    )
    if options.sort == "created":
        entries.sort(key=lambda entry: entry.manifest.created)
    elif options.sort == "metric":
        entries.sort(key=lambda entry: (entry.manifest.task["id"], -_value(entry)))
    rows = [_row(entry) for entry in entries]
    if options.json:
        print(json.dumps({"zoo": str(zoo.root), "entries": rows}))
        return 0
    from tabulate import tabulate

    table = [
        [
            row["ref"],
            row["task"],
            row["method"],
            row["seed"],
            row["metric"],
            f"{_text(row['test'])} ± {_text(row['stderr'])}",
            f"{row['parameters']:,}",
            "yes" if row["verified"] else "no",
            row["created"][:16].replace("T", " "),
        ]
        for row in rows
    ]
    headers = [
        "entry", "task", "method", "seed", "metric", "test ± se", "trained", "verified", "created",
    ]  # fmt: skip
    if table:
        print(tabulate(table, headers=headers, disable_numparse=True))
    print(f"{len(rows)} entries in {zoo.root}")
    return 0


def _row(entry: Entry) -> dict[str, Any]:
    manifest = entry.manifest
    test = manifest.headline() or {"value": None, "stderr": None, "n": None}
    return {
        "ref": entry.ref,
        "digest": entry.digest,
        "kind": manifest.kind,
        "task": manifest.task["id"],
        "method": manifest.method,
        "seed": manifest.seed,
        "base": manifest.base["id"],
        "metric": manifest.task["headline"],
        "test": test["value"],
        "stderr": test["stderr"],
        "n": test["n"],
        "parameters": manifest.training["trainable_parameters"],
        "verified": manifest.verified is not None,
        "created": manifest.created,
    }


def _value(entry: Entry) -> float:
    found = entry.manifest.headline()
    value = found["value"] if found else None
    return float("-inf") if value is None else float(value)


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _show(zoo: Zoo, options: Namespace) -> int:
    entry = zoo.get(options.ref)
    manifest = entry.manifest.to_dict()
    if options.json:
        print(json.dumps({"ref": entry.ref, "digest": entry.digest, "manifest": manifest}))
        return 0
    print(f"{entry.ref}\ndigest {entry.digest}\n")
    print(json.dumps(manifest, indent=2, ensure_ascii=False))
    used = [user.ref for user in zoo.users(entry.digest)]
    if used:
        print("\nneeded by " + ", ".join(used))
    return 0


def _fsck(zoo: Zoo, options: Namespace) -> int:
    from tqdm import tqdm

    removed = zoo.clean() if options.fix else []
    with tqdm(desc="check", unit="entry", leave=False, disable=None, file=sys.stderr) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        problems = zoo.fsck(progress)
    count = len(zoo.entries())
    if options.json:
        print(
            json.dumps(
                {
                    "zoo": str(zoo.root),
                    "entries": count,
                    "removed": removed,
                    "problems": [problem.to_dict() for problem in problems],
                }
            )
        )
    else:
        for path in removed:
            print(f"removed {path}")
        for problem in problems:
            print(problem)
        print(f"{count} entries in {zoo.root}: {len(problems)} problems")
    return 1 if problems else 0


def _rm(zoo: Zoo, options: Namespace) -> int:
    removed = zoo.remove_all(options.ref, options.force)
    if options.json:
        print(json.dumps({"removed": removed}))
    else:
        for ref in removed:
            print(f"removed {ref}")
    return 0
