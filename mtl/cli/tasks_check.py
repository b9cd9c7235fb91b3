"""``mtl.tasks check``: what is wrong with tasks and their data, and what is worth a look."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mtl.words import counted

if TYPE_CHECKING:
    from mtl.checks.checking import TaskReport


def run(options: Namespace) -> int:
    """Print what was found; 1 if something is wrong (with ``--strict``, if anything is found)."""
    from mtl.cli.options import names as split_names
    from mtl.cli.tasks import words_of
    from mtl.errors import RequestError
    from mtl.files import user_path
    from mtl.tasks import PROTOCOLS, list_recipes, list_suites, list_tasks, load_recipe, load_suite
    from mtl.tasks.finding import resolve_task
    from mtl.tasks.yamls import catalog, is_file_name

    if options.all == bool(options.tasks):
        raise RequestError("Say what to check: names of tasks, or --all.")
    if not 0 <= options.near <= 1:
        raise RequestError(f"--near {options.near}: a similarity is from 0 to 1.")
    if options.protocol:
        PROTOCOLS.get(options.protocol)
    # An unknown name is a wrong request; what is behind a known one is what is checked.
    names = list_tasks() if options.all else list(options.tasks)
    against = split_names(options.against)
    for name in [*names, *against]:
        if not is_file_name(name):
            resolve_task(name)
        elif not user_path(name, "the task").is_file():
            raise RequestError(f"There is no file {name}.")
    words = words_of(options.model) if options.model else None
    reports = _reports(names, against, words, options)
    others = [str(text) for text in catalog().problems.values()] if options.all else []
    if options.all:
        for load, listed in ((load_suite, list_suites()), (load_recipe, list_recipes())):
            for name in listed:
                try:
                    load(name)
                except RequestError as error:
                    others.append(str(error))
    wrong = len(others) + sum(bool(report.of_level("problem")) for report in reports)
    looked = sum(bool(report.findings) for report in reports) if options.strict else 0
    code = 1 if wrong or looked else 0
    if options.json:
        tasks = [report.to_dict() for report in reports]
        print(json.dumps({"tasks": tasks, "problems": others, "wrong": wrong}))
        return code
    _print(reports, others, wrong)
    return code


def _reports(
    names: Sequence[str],
    against: Sequence[str],
    words: tuple[Any, Any] | None,
    options: Namespace,
) -> list[TaskReport]:
    """One per task that was asked for; what crosses to the tasks against it is in its findings."""
    from dataclasses import replace

    from tqdm import tqdm

    from mtl.checks.checking import TaskReport, check_task
    from mtl.checks.findings import Finding
    from mtl.checks.leaks import leaks_between
    from mtl.cli.tasks import data_root
    from mtl.errors import MtlError
    from mtl.tasks import load_task

    def report_on(
        name: str, near: float, words: tuple[Any, Any] | tuple[None, None] = (None, None)
    ) -> TaskReport:
        try:
            spec = load_task(name)
        except MtlError as error:
            return TaskReport(name, [Finding("unusable", "problem", str(error).rstrip("."))])
        if options.group_by and name not in against:
            spec = replace(spec, group_by=options.group_by)
        return check_task(
            spec,
            data_root=data_root(options),
            protocol=options.protocol,
            tokenizer=words[0],
            config=words[1],
            near=near,
        )

    reports = []
    held = [report_on(name, 0.0) for name in against]
    for name in tqdm(names, desc="check", unit="task", leave=False, disable=None, delay=2):
        report = report_on(name, options.near, words or (None, None))
        reports.append(report)
        for other in held:
            if other.data is None or other.rows is None:
                text = (
                    f"{other.task} cannot be read, so nothing was compared with it: "
                    + "; ".join(finding.text for finding in other.of_level("problem"))
                )
                report.findings.append(Finding("unusable", "problem", text))
            elif report.data and report.rows and other.task != report.task:
                ours, theirs = (report.data, report.rows), (other.data, other.rows)
                report.findings += leaks_between(*ours, *theirs, options.near)
                report.findings += [
                    replace(finding, text=f"{other.task}, {finding.text}")
                    for finding in leaks_between(*theirs, *ours, options.near)
                ]
        if not held:  # tables of many tasks at once would fill the memory
            report.data = report.rows = None
    return reports


def _print(reports: Sequence[TaskReport], others: Sequence[str], wrong: int) -> None:
    from tabulate import tabulate

    table = []
    for report in reports:
        state = "wrong" if report.of_level("problem") else "good"
        for row in report.splits or [{}]:
            item = {
                "task": report.task,
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
    for title, level in (("worth a look", "remark"), ("wrong", "problem")):
        found = [(report.task, f) for report in reports for f in report.of_level(level)]
        rest = list(others) if level == "problem" else []
        if found or rest:
            print(f"\n{title}:")
        for task, finding in found:
            print(f"  {task}, {finding.text}")
            for example in finding.examples[: 1 if level == "remark" else None]:
                print(f"      {example}")
        for text in rest:
            print(f"  {text}")
    if any(len(f.examples) > 1 for report in reports for f in report.of_level("remark")):
        print("\n(--json has more rows of each.)")
    print(f"\n{counted(len(reports), 'task')} checked, {wrong or 'nothing'} wrong.")


def _counts(labels: dict[str, Any]) -> str:
    parts = [
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value:,}"
        for name, value in labels.items()
    ]
    return ", ".join(parts[:6]) + (", …" if len(parts) > 6 else "")
