"""``mtl.tasks``: list tasks and suites; show, check and draft are in files of their own."""

from __future__ import annotations

import json
import os
from argparse import BooleanOptionalAction, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mtl.cli.options import Parser

if TYPE_CHECKING:
    from mtl.tasks import TaskSpec

DESCRIPTION = (
    "Tasks and suites: list them, show rows as the encoder sees them, check them, write a first "
    "file for your own data."
)


def main(argv: Sequence[str]) -> int:
    parser = Parser(prog="mtl.tasks", description=DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("ls", help="tasks, suites and recipes")
    listing.add_argument("--suite", help="only the tasks of this suite")
    show = commands.add_parser("show", help="rows of a task, as text, as tokens, and as columns")
    show.add_argument("task", metavar="TASK", help="id, bare name, or a YAML file")
    show.add_argument("-n", type=int, default=3, metavar="N", help="how many rows [3]")
    show.add_argument("--split", default="train", help="train, dev, test or test_… [train]")
    show.add_argument("--model", help="whose tokens: Hub name, folder, 'demo' [MTL_MODEL, suite]")
    show.add_argument("--shots", type=int, default=0, metavar="K", help="those of a few-shot draw")
    show.add_argument(
        "--shots-per-class", type=int, default=0, metavar="K", help="so many of every class"
    )
    show.add_argument("--shot-draw", type=int, default=0, metavar="D", help="which draw [0]")
    check = commands.add_parser("check", help="read specs and data, report what is wrong")
    check.add_argument("tasks", nargs="*", metavar="TASK", help="ids, bare names, or YAML files")
    check.add_argument("--all", action="store_true", help="every task, suite and recipe")
    check.add_argument("--model", help="count tokens, too: Hub name, folder, or 'demo'")
    check.add_argument(
        "--against",
        nargs="+",
        default=[],
        metavar="TASK",
        help="look for test rows in training rows of these tasks, and the other way round",
    )
    check.add_argument(
        "--near",
        type=float,
        default=0.8,
        metavar="J",
        help="similarity of near duplicates, 0 for exact ones only [0.8]",
    )
    check.add_argument(
        "--group-by", metavar="COLUMN", help="hold out rows as if the tasks had this `group_by`"
    )
    check.add_argument("--strict", action="store_true", help="remarks are wrong, too (exit 1)")
    new = commands.add_parser("new", help="write a first task file from the columns of your files")
    new.add_argument("task", metavar="SUITE/NAME", help="id of the task, e.g. my/reviews")
    new.add_argument("--from", required=True, dest="train", metavar="FILE", help="training rows")
    new.add_argument("--dev", metavar="FILE", help="rows to select on")
    new.add_argument("--test", metavar="FILE", help="rows to test on")
    new.add_argument(
        "--label",
        nargs="+",
        default=[],
        metavar="COLUMN",
        help="the label, or a column of 0 and 1 per label [guessed]",
    )
    new.add_argument("--text", nargs="+", default=[], metavar="COLUMN", help="a text or a pair")
    new.add_argument(
        "--group-by",
        metavar="COLUMN",
        help="a user, a document, …: hold out all of its rows, or none",
    )
    new.add_argument("--kind", choices=("classification", "regression", "multilabel"))
    new.add_argument(
        "--separator",
        "--delimiter",
        metavar="C",
        help="between cells: ';', tab, … [suffix, guessed]",
    )
    new.add_argument(
        "--quoted", dest="quoting", action="store_const", const="double", help="cells may be quoted"
    )
    new.add_argument(
        "--unquoted", dest="quoting", action="store_const", const="none", help="quotes are text"
    )
    new.add_argument(
        "--header",
        action=BooleanOptionalAction,
        help="whether the first line names the columns [guessed]",
    )
    new.add_argument(
        "--columns", nargs="+", default=[], metavar="NAME", help="names where there is no header"
    )
    new.add_argument("--encoding", metavar="NAME", help="of text files [utf-8, else guessed]")
    new.add_argument("--field", metavar="NAME", help="of a JSON file: where the rows are [guessed]")
    new.add_argument("--out", metavar="YAML", help="[MTL_TASKS or here: SUITE/NAME.yaml]")
    suite = commands.add_parser("suite", help="write a suite file over your tasks")
    suite = suite.add_subparsers(dest="what", required=True).add_parser("new", help="write one")
    suite.add_argument("name", metavar="NAME", help="of the suite, e.g. my")
    suite.add_argument("--tasks", nargs="+", required=True, metavar="TASK", help="ids, or files")
    suite.add_argument("--model", help="default encoder [MTL_MODEL, roberta-base]")
    suite.add_argument("--recipe", default="scalearn", help="default recipe [scalearn]")
    suite.add_argument("--protocol", help="how all data are split [each task's own]")
    suite.add_argument("--target", metavar="TASK", help="the task that examples transfer to")
    suite.add_argument("--out", metavar="YAML", help="[MTL_TASKS or here: NAME/suite.yaml]")
    for command in (show, check):
        command.add_argument("--protocol", help="how data are split [the suite's]")
    for command in (listing, show, check):
        command.add_argument("--data-root", help="local mirror of Hub datasets [MTL_DATA_ROOT]")
    for command in (listing, show, check, new, suite):
        command.add_argument("--json", action="store_true", help="one line of JSON")
    options = parser.parse_args(list(argv))
    if options.command == "ls":
        return _ls(options)
    from importlib import import_module

    module = import_module(f"mtl.cli.tasks_{options.command}")
    return int(module.run(options))


def _ls(options: Namespace) -> int:
    from mtl.data.split_sizes import known_sizes
    from mtl.errors import RequestError
    from mtl.tasks import list_recipes, list_suites, list_tasks, load_member, load_suite, load_task
    from mtl.tasks.yamls import catalog

    chosen = load_suite(options.suite) if options.suite else None
    root = data_root(options)
    problems = [str(text) for text in catalog().problems.values()]
    tasks: list[dict[str, Any]] = []
    suites: list[dict[str, Any]] = []
    members: dict[str, list[str]] = {}
    for name in [options.suite] if chosen else list_suites():
        try:
            suite = load_suite(name)
        except RequestError as error:
            problems.append(str(error))
            continue
        for task in suite.tasks:
            members.setdefault(task, []).append(suite.name)
        suites.append(
            {
                "suite": suite.name,
                "tasks": list(suite.tasks),
                "model": suite.model,
                "recipe": suite.recipe,
                "protocol": suite.protocol,
                "target": suite.target,
                "notes": suite.notes,
            }
        )
    for name in chosen.tasks if chosen else list_tasks():
        try:
            spec = load_member(name, chosen) if chosen else load_task(name)
        except RequestError as error:
            problems.append(str(error))
            continue
        tasks.append(
            {
                "task": spec.id,
                "kind": spec.kind,
                "metric": spec.headline,
                "outputs": spec.num_outputs,
                "rows": known_sizes(spec, root),
                "source": source_of(spec),
                "suites": members.get(spec.id, []),
            }
        )
    recipes = list_recipes()
    if options.json:
        found = {"tasks": tasks, "suites": suites, "recipes": recipes, "problems": problems}
        print(json.dumps(found))
        return 0
    from tabulate import tabulate

    rows = [
        {**row, "rows": _sizes(row["rows"]), "suites": ", ".join(row["suites"]) or "–"}
        for row in tasks
    ]
    print(tabulate(rows, headers="keys", disable_numparse=True))
    table = [
        {key: value or "–" for key, value in suite.items() if key != "notes"}
        | {"tasks": len(suite["tasks"])}
        for suite in suites
    ]
    print("\n" + tabulate(table, headers="keys", disable_numparse=True))
    print(f"\nrecipes: {', '.join(recipes)}")
    for text in problems:
        print(f"not usable: {text}")
    return 0


def _sizes(rows: dict[str, int] | None) -> str:
    """Rows of the splits as in the source; a dash where finding out means a download."""
    return " / ".join(f"{size:,}" for size in rows.values()) if rows else "–"


def source_of(spec: TaskSpec) -> str:
    """Where the rows come from, in one word or two."""
    data = spec.data
    if "repo" in data:
        return data["repo"] + (f":{data['config']}" if data.get("config") else "")
    if "demo" in data:
        return "generated"
    return "files: " + ", ".join(data["files"])


def data_root(options: Namespace) -> str | None:
    """``--data-root``, else the environment's."""
    return options.data_root or os.environ.get("MTL_DATA_ROOT") or None


def tokenizer_of(model: str) -> Any:
    """The tokenizer of a model, without the libraries' notes."""
    return words_of(model)[0]


def words_of(model: str) -> tuple[Any, Any]:
    """The tokenizer of a model and the config of its encoder, without the libraries' notes."""
    from mtl.backbone.backbones import load_words
    from mtl.cli.common import quieten

    quieten()
    return load_words(model)
