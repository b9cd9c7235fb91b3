"""``mtl.zoo``: list, show, compare, check, verify, remove, share (files, the Hub) what it holds."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from mtl.cli import hub, zoo_care, zoo_list, zoo_share, zoo_verify
from mtl.cli.options import Parser, add_task_files
from mtl.errors import RequestError
from mtl.words import counted
from mtl.zoo.migration import SCHEMA_VERSION
from mtl.zoo.place import zoo_option

if TYPE_CHECKING:
    from mtl.zoo import Entry, Zoo


def main(argv: Sequence[str]) -> int:
    parser = Parser(prog="mtl.zoo", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    add = partial(_add, commands)
    zoo_list.add_ls(add)
    show = add("show", "everything about one entry")
    show.add_argument("ref", help="reference, its last parts, or the start of its digest")
    show.add_argument(
        "--measure",
        action="store_true",
        help="of a composition: each source's share of the mixture on dev, how far omega moved, "
        "and its error; kept for heat maps",
    )
    show.add_argument("--model", help="the base to measure with [MTL_MODEL, what the entry names]")
    show.add_argument("--data-root", help="local mirror of Hub datasets [MTL_DATA_ROOT]")
    add_task_files(show)
    fsck = add("fsck", "check every file of every entry")
    fsck.add_argument("--jobs", type=int, help="entries checked at once [processors, at most 8]")
    fsck.add_argument("--fix", action="store_true", help="remove what killed writers left behind")
    rm = add("rm", "remove entries; refused while a composition needs one")
    rm.add_argument("ref", nargs="+", help="reference, its last parts, or the start of its digest")
    rm.add_argument("--force", action="store_true", help="even if a composition needs it")
    zoo_care.add_commands(add)
    zoo_verify.add_verify(add)
    zoo_share.add_commands(add)
    remote = hub.add_commands(add)
    options, rest = parser.parse_known_args(list(argv))
    hub.take(parser, options, rest)

    from mtl.zoo import open_zoo

    zoo = open_zoo(options.zoo)
    run = {
        "ls": zoo_list.ls,
        "show": _show,
        "fsck": _fsck,
        "rm": _rm,
        "gc": zoo_care.gc,
        "diff": zoo_care.diff,
        "migrate": zoo_care.migrate,
        "verify": zoo_verify.verify,
        "copy": zoo_share.copy,
        "pack": zoo_share.pack,
        "unpack": zoo_share.unpack,
        **remote,
    }[options.command]
    return run(zoo, options)


def _add(commands: Any, name: str, text: str) -> Any:
    parser = commands.add_parser(name, help=text, description=text)
    parser.add_argument("--zoo", help="folder of the zoo [MTL_ZOO, ./adapters_zoo]")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    return parser


def _show(zoo: Zoo, options: Namespace) -> int:
    from mtl.words import printable, printable_lines
    from mtl.zoo.caveats import caveats, footnotes
    from mtl.zoo.measured import recall_measured
    from mtl.zoo.quality import beside, beside_text, constant_of, remarks

    entry = zoo.get(options.ref)
    manifest = entry.manifest.to_dict()
    found = caveats(entry)
    if options.measure:
        _measure(entry, zoo, options)
    measured = recall_measured(entry) if entry.manifest.kind == "composition" else None
    if options.json:
        said = {"ref": entry.ref, "digest": entry.digest, "manifest": manifest, "caveats": found}
        if measured is not None:
            said["measured"] = asdict(measured)
        print(json.dumps(said))
        return 0
    print(f"{entry.ref}\ndigest {entry.digest}\n")
    for line in json.dumps(manifest, indent=2, ensure_ascii=False).splitlines():
        print(printable(line))
    if found:
        print(footnotes(found.items()))
    if measured is not None:
        print("\n" + printable_lines(measured.text([p["task"] for p in entry.manifest.parents])))
    values = {name: item["value"] for name, item in beside(entry.manifest).items()}
    if values:
        print(f"\nbaselines on test: {beside_text(values)}")
    for line in remarks(entry.manifest, constant_of(entry)):
        print(f"note: {printable(line)}")
    used = [user.ref for user in zoo.users(entry.digest)]
    if used:
        print("\nneeded by " + ", ".join(used))
    return 0


def _measure(entry: Entry, zoo: Zoo, options: Namespace) -> None:
    """Measure how a composition uses its sources."""
    from mtl.backbone import load_backbone
    from mtl.cli.common import quieten
    from mtl.compose.measured import measure_sources
    from mtl.engine import open_device
    from mtl.runs import open_workspace
    from mtl.runs.loading import base_of

    if entry.manifest.kind != "composition":
        raise RequestError(f"--measure: {entry.ref} is no composition; it has no sources.")
    quieten()
    workspace = open_workspace(zoo=zoo.root, data_root=options.data_root, tasks=options.task)
    backbone = load_backbone(base_of(entry, options.model))
    device = open_device("fp32", hidden_size=backbone.base.hidden_size)
    with zoo.reading(entry):
        measure_sources(entry, workspace, backbone, device)


def _fsck(zoo: Zoo, options: Namespace) -> int:
    from tqdm import tqdm

    from mtl.words import printable

    if options.jobs is not None and not 1 <= options.jobs <= 64:
        raise RequestError(f"--jobs {options.jobs} must be from 1 to 64.")
    removed = zoo.clean() if options.fix else []
    count = 0
    with tqdm(desc="check", unit="entry", leave=False, disable=None, file=sys.stderr) as bar:

        def progress(done: int, total: int) -> None:
            nonlocal count
            bar.total = count = total
            bar.update(done - bar.n)

        problems = zoo.fsck(progress, options.jobs)
    old = sum(summary.schema_version < SCHEMA_VERSION for summary in zoo.summaries())
    if options.json:
        print(
            json.dumps(
                {
                    "zoo": str(zoo.root),
                    "entries": count,
                    "removed": removed,
                    "old_schema": old,
                    "problems": [problem.to_dict() for problem in problems],
                }
            )
        )
    else:
        for path in removed:
            print(f"removed {path}")
        for problem in problems:
            print(printable(problem))
        if old:
            said = "entry is" if old == 1 else "entries are"
            them = "it" if old == 1 else "them"
            print(
                f"{old} {said} of an older schema version; 'python -m mtl.zoo "
                f"migrate{zoo_option(zoo.root)}' rewrites {them}."
            )
        wrong = counted(len(problems), "problem")
        print(f"{counted(count, 'entry', 'entries')} in {zoo.root}: {wrong}")
    return 1 if problems else 0


def _rm(zoo: Zoo, options: Namespace) -> int:
    removed = zoo.remove_all(options.ref, options.force)
    if options.json:
        print(json.dumps({"removed": removed}))
    else:
        for ref in removed:
            print(f"removed {ref}")
    return 0
