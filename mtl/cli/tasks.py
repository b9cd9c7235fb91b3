"""``mtl.tasks``: list tasks and suites, show rows as encoded, check specs and data."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mtl.cli.options import PlainParser

if TYPE_CHECKING:
    from mtl.tasks import TaskSpec
    from mtl.tasks.data import TaskData
    from mtl.tasks.encoding import Encoded

DESCRIPTION = "Tasks and suites: list them, show rows as the encoder sees them, check them."


def main(argv: Sequence[str]) -> int:
    parser = PlainParser(prog="mtl.tasks", description=DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("ls", help="tasks, suites and recipes")
    show = commands.add_parser("show", help="rows of a task, as text or as tokens")
    show.add_argument("task", metavar="TASK", help="id, bare name, or a YAML file")
    show.add_argument("-n", type=int, default=3, metavar="N", help="how many rows [3]")
    show.add_argument("--split", default="train", help="train, dev, test or test_… [train]")
    check = commands.add_parser("check", help="read specs and data, report what is wrong")
    check.add_argument("tasks", nargs="*", metavar="TASK", help="ids, bare names, or YAML files")
    check.add_argument("--all", action="store_true", help="every task, suite and recipe")
    for command in (show, check):
        command.add_argument("--model", help="tokenise, too: Hub name, folder, or 'demo'")
        command.add_argument("--protocol", help="how data are split [the suite's]")
        command.add_argument("--data-root", help="local mirror of Hub datasets [MTL_DATA_ROOT]")
    for command in (listing, show, check):
        command.add_argument("--json", action="store_true", help="one line of JSON")
    options = parser.parse_args(list(argv))
    return {"ls": _ls, "show": _show, "check": _check}[options.command](options)


def _ls(options: Namespace) -> int:
    from mtl.errors import RequestError
    from mtl.tasks import list_recipes, list_suites, list_tasks, load_suite, load_task
    from mtl.tasks.yamls import catalog

    problems = [str(text) for text in catalog().problems.values()]
    tasks: list[dict[str, Any]] = []
    suites: list[dict[str, Any]] = []
    members: dict[str, list[str]] = {}
    for name in list_suites():
        try:
            suite = load_suite(name)
        except RequestError as error:
            problems.append(str(error))
            continue
        for task in suite.tasks:
            members.setdefault(task, []).append(name)
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
    for name in list_tasks():
        try:
            spec = load_task(name)
        except RequestError as error:
            problems.append(str(error))
            continue
        tasks.append(
            {
                "task": spec.id,
                "kind": spec.kind,
                "metric": spec.headline,
                "outputs": spec.num_outputs,
                "source": _source(spec),
                "suites": members.get(spec.id, []),
            }
        )
    recipes = list_recipes()
    if options.json:
        found = {"tasks": tasks, "suites": suites, "recipes": recipes, "problems": problems}
        print(json.dumps(found))
        return 0
    from tabulate import tabulate

    rows = [{**row, "suites": ", ".join(row["suites"]) or "–"} for row in tasks]
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


def _source(spec: TaskSpec) -> str:
    """Where the rows come from, in one word or two."""
    data = spec.data
    if "repo" in data:
        return data["repo"] + (f":{data['config']}" if data.get("config") else "")
    if "demo" in data:
        return "generated"
    return "files: " + ", ".join(data["files"])


def _load(spec: TaskSpec, options: Namespace) -> TaskData:
    from mtl.tasks import default_protocol, load_data

    return load_data(
        spec,
        data_root=options.data_root or os.environ.get("MTL_DATA_ROOT") or None,
        protocol=options.protocol or default_protocol(spec),
    )


def _tokenizer(model: str | None) -> Any:
    if not model:
        return None
    from mtl.backbone.load import load_tokenizer
    from mtl.cli.common import quieten

    quieten()
    return load_tokenizer(model)


def _show(options: Namespace) -> int:
    from mtl.errors import RequestError, unknown
    from mtl.tasks import encode, load_task

    if options.n < 1:
        raise RequestError(f"-n {options.n}: the number of rows must be at least 1.")
    spec = load_task(options.task)
    tokenizer = _tokenizer(options.model)
    data = _load(spec, options)
    if options.split not in data.splits:
        raise unknown(f"split of {spec.id}", options.split, data.splits)
    split = data.splits[options.split]
    encoded = encode(data, options.split, tokenizer) if tokenizer else None
    rows: list[dict[str, Any]] = []
    for row in range(min(options.n, len(split))):
        item: dict[str, Any] = {
            "row": row,
            "texts": [texts[row] for texts in split.texts],
            "label": _label(spec, split.labels[row]),
        }
        if encoded is not None:
            item |= _tokens(data, encoded, row, tokenizer)
        rows.append(item)
    if options.json:
        print(
            json.dumps(
                {
                    "task": spec.id,
                    "split": options.split,
                    "protocol": data.protocol,
                    "sizes": dict(data.sizes),
                    "fingerprint": data.fingerprint,
                    "rows": rows,
                }
            )
        )
        return 0
    sizes = ", ".join(f"{name} {size:,}" for name, size in data.sizes.items())
    print(f"{spec.id}  {spec.kind}, {', '.join(spec.metrics)}; {_source(spec)}")
    print(f"protocol {data.protocol}: {sizes}")
    for note in data.notes:
        print(f"note: {note}")
    for item in rows:
        print(f"\n{options.split} {item['row']}: {item['label']}")
        for text in item["texts"]:
            print(f"  {text}")
        for tokens in item.get("encodings", []):
            cut = ", truncated" if item["truncated"] else ""
            print(f"  {len(tokens)} tokens{cut}: {' '.join(tokens)}")
    return 0


def _tokens(data: TaskData, encoded: Encoded, row: int, tokenizer: Any) -> dict[str, Any]:
    """The encodings of a row as tokens: one, one per choice, or one per window."""
    import numpy as np

    windows = encoded.table.get("example")
    rows = [row] if windows is None else np.flatnonzero(windows == row).tolist()
    encodings = [
        tokenizer.convert_ids_to_tokens(ids.tolist())
        for place in rows
        for ids in encoded.tokens(place)
    ]
    first, *rest = (texts[row] for texts in data.splits[encoded.name].texts)
    wholes: list[tuple[str, ...]] = [(first, second) for second in rest] or [(first,)]
    length = max(len(tokenizer(*texts, verbose=False)["input_ids"]) for texts in wholes)
    return {
        "tokens": encodings[0],
        "encodings": encodings,
        "length": int(encoded.lengths[rows[0]]),
        "truncated": length > max(map(len, encodings)),
    }


def _label(spec: TaskSpec, value: Any) -> Any:
    """A label as people write it: the name, the number, or the names of a set."""
    if spec.kind == "regression":
        return round(float(value), 6)
    if spec.kind == "span_extraction":
        return [int(place) for place in value]
    if value.ndim:
        return [name for name, on in zip(spec.labels, value, strict=True) if on]
    return spec.labels[int(value)]


def _check(options: Namespace) -> int:
    from mtl.errors import RequestError
    from mtl.tasks import PROTOCOLS, list_recipes, list_suites, list_tasks, load_recipe, load_suite
    from mtl.tasks.spec import resolve_task
    from mtl.tasks.yamls import catalog, is_file_name

    if options.all == bool(options.tasks):
        raise RequestError("Say what to check: names of tasks, or --all.")
    if options.protocol:
        PROTOCOLS.get(options.protocol)
    # An unknown name is a wrong request; what is behind a known one is what is checked.
    names = list_tasks() if options.all else list(options.tasks)
    for name in names:
        if not is_file_name(name):
            resolve_task(name)
        elif not os.path.isfile(os.path.expanduser(name)):
            raise RequestError(f"There is no file {name}.")
    tokenizer = _tokenizer(options.model)
    reports = [_check_task(name, tokenizer, options) for name in names]
    others = [str(text) for text in catalog().problems.values()] if options.all else []
    if options.all:
        for load, listed in ((load_suite, list_suites()), (load_recipe, list_recipes())):
            for name in listed:
                try:
                    load(name)
                except RequestError as error:
                    others.append(str(error))
    wrong = len(others) + sum(bool(report["problems"]) for report in reports)
    if options.json:
        print(json.dumps({"tasks": reports, "problems": others, "wrong": wrong}))
        return 1 if wrong else 0
    _print_check(reports, others, wrong)
    return 1 if wrong else 0


def _check_task(name: str, tokenizer: Any, options: Namespace) -> dict[str, Any]:
    """What is in a task: rows per split with counts, problems (wrong), remarks (worth a look)."""
    from mtl.errors import MtlError
    from mtl.tasks import encode, load_task

    report: dict[str, Any] = {"task": name, "splits": [], "problems": [], "remarks": []}
    try:
        spec = load_task(name)
        report["task"] = spec.id
        data = _load(spec, options)
        report |= {"protocol": data.protocol, "fingerprint": data.fingerprint}
        report["remarks"] += data.notes
        seen: dict[str, set[tuple[str, ...]]] = {}
        for split_name in data.splits:
            encoded = encode(data, split_name, tokenizer) if tokenizer else None
            row, texts = _check_split(data, split_name, report)
            if encoded is not None:
                row["longest"] = int(encoded.lengths.max())
                row["truncated"] = encoded.truncated / len(encoded)
            report["splits"].append(row)
            seen[split_name] = texts
        for split_name in list(seen)[1:]:
            shared = len(seen["train"] & seen[split_name])
            if shared:
                report["remarks"].append(f"{split_name}: {shared} inputs stand in train, too")
    except MtlError as error:
        report["problems"].append(str(error))
    return report


def _check_split(
    data: TaskData, name: str, report: dict[str, Any]
) -> tuple[dict[str, Any], set[tuple[str, ...]]]:
    """Counts of one split and the set of its inputs; adds findings to ``report``."""
    import numpy as np

    spec, split = data.spec, data.splits[name]
    inputs = list(zip(*split.texts, strict=True))
    distinct = set(inputs)
    blank = [row for row, texts in enumerate(inputs) if not any(text.strip() for text in texts)]
    partly = sum(any(not text.strip() for text in texts) for texts in inputs) - len(blank)
    if blank:
        report["problems"].append(
            f"{spec.id}, {name}: {len(blank)} rows have no text at all (the first: row {blank[0]})."
        )
    if partly:
        report["remarks"].append(f"{name}: {partly} rows have one empty text")
    row: dict[str, Any] = {
        "split": name,
        "rows": len(split),
        "empty": len(blank) + partly,
        "duplicates": len(inputs) - len(distinct),
    }
    if spec.kind == "regression":
        low, high = float(split.labels.min()), float(split.labels.max())
        row["labels"] = {"min": low, "mean": float(split.labels.mean()), "max": high}
        if low == high:
            report["remarks"].append(f"{name}: all labels are {low}")
        return row, distinct
    if spec.kind == "span_extraction":
        row["labels"] = {"answers": len(split)}
        return row, distinct
    if split.labels.ndim == 1:
        counts = np.bincount(split.labels, minlength=len(spec.labels))
    else:
        counts = split.labels.sum(axis=0).astype(np.int64)
    row["labels"] = dict(zip(spec.labels, counts.tolist(), strict=True))
    absent = [label for label, count in row["labels"].items() if not count]
    if absent and name == "train":
        report["problems"].append(
            f"{spec.id}: no training row has the label {', '.join(map(repr, absent))}. Add rows, "
            "or take the label out of the list."
        )
    elif absent:
        report["remarks"].append(f"{name}: no row has the label {', '.join(map(repr, absent))}")
    return row, distinct


def _print_check(reports: Sequence[dict[str, Any]], others: Sequence[str], wrong: int) -> None:
    from tabulate import tabulate

    table = []
    for report in reports:
        state = "wrong" if report["problems"] else "good"
        for row in report["splits"] or [{}]:
            item = {
                "task": report["task"],
                "": state,
                "split": row.get("split", "–"),
                "rows": row.get("rows", ""),
                "empty": row.get("empty", ""),
                "duplicates": row.get("duplicates", ""),
                "labels": _counts(row.get("labels", {})),
            }
            if "truncated" in row:
                item |= {"longest": row["longest"], "truncated": f"{row['truncated']:.1%}"}
            table.append(item)
    print(tabulate(table, headers="keys", disable_numparse=True))
    remarks = [f"{r['task']}, {text}" for r in reports for text in r["remarks"]]
    problems = [text for r in reports for text in r["problems"]] + list(others)
    for title, texts in (("worth a look", remarks), ("wrong", problems)):
        if texts:
            print(f"\n{title}:")
        for text in texts:
            print(f"  {text}")
    print(f"\n{len(reports)} tasks checked, {wrong or 'nothing'} wrong.")


def _counts(labels: dict[str, Any]) -> str:
    parts = [
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value:,}"
        for name, value in labels.items()
    ]
    return ", ".join(parts[:6]) + (", …" if len(parts) > 6 else "")
