"""``mtl.joint``: joint baselines, one model trained on all tasks of a suite."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mtl.typed import given

if TYPE_CHECKING:
    from mtl.runs import Report


def main(argv: Sequence[str]) -> int:
    from mtl.cli.common import add_methods, make_parser

    parser = make_parser(
        "mtl.joint",
        "Joint multi-task baselines: train one model on several tasks, one task per batch, and put "
        "it with a head per task into the zoo. Finished runs are skipped, interrupted ones go on.",
        beside=False,
    )
    parser.add_argument("--suite", type=str, help="train on all tasks of a suite, e.g. demo")
    parser.add_argument(
        "--task", nargs="+", type=str, default=[], metavar="TASK", help="only on these tasks"
    )
    add_methods(
        parser,
        "hyperformer, hyperformer++, propetl-m, adapter-m, full-ft-m; of several, a run each",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="one run per seed")
    options = parser.parse_args(list(argv))

    from mtl.cli import common
    from mtl.cli.grid import read_grid
    from mtl.cli.options import names
    from mtl.cli.planned import run_planned
    from mtl.compose.composition import COMPOSITIONS
    from mtl.joint import JOINT, plan_joint, resolve_joint
    from mtl.methods import METHODS
    from mtl.runs.context import check_seeds, specs_of, suite_of

    grid = read_grid(options, parser)
    methods = {}
    for point in grid.points:
        hint = ""
        if point.method in METHODS:
            hint = (
                f"That is stage one: python -m mtl.train --method {point.method}"
                f"{given('--zoo')} --suite SUITE."
            )
        elif point.method in COMPOSITIONS:
            hint = (
                f"That is stage two: python -m mtl.compose --method {point.method}"
                f"{given('--zoo')} --target TASK."
            )
        methods[point.method] = JOINT.get(point.method, hint)
    tasks = names(options.task)
    suite = suite_of(options.suite, tasks)
    specs = specs_of(suite, tasks)
    context = common.open_context(
        options,
        grid,
        suite,
        "joint",
        argv,
        lambda recipe, point: resolve_joint(
            methods[point.method], recipe, point.overrides, [spec.id for spec in specs]
        ),
    )
    seeds = check_seeds(options.seeds)
    planned = [
        (
            point,
            plan_joint(
                specs,
                suite=suite.name,
                method=point.method,
                seeds=seeds,
                backbone=context.backbone,
                recipe=context.recipe,
                protocol_of=context.protocol_of,
                overrides=point.overrides,
                workspace=context.workspace,
            ),
        )
        for point in grid.points
    ]
    ran = run_planned(planned, grid, context, options)
    if ran is None:
        return 0
    plan, reports = ran
    if options.json:
        rows = common.report_rows(reports)
        for row, report in zip(rows, reports, strict=True):
            row["tasks"] = task_rows(report)
            row["average_of"] = dict(Counter(item["metric"] for item in row["tasks"]))
        print(json.dumps({"command": "joint", "runs": rows, "plan": plan}))
    else:
        print_tasks(reports)
        common.print_reports(reports)
    return common.exit_code(reports)


def task_rows(report: Report) -> list[dict[str, Any]]:
    """What a finished run reached on each of its tasks."""
    from mtl.zoo.caveats import stated
    from mtl.zoo.quality import beside

    if report.entry is None:
        return []
    manifest = report.entry.manifest
    rows = []
    for task in manifest.task["tasks"]:
        name = f"{task['id']}/{task['headline']}"
        dev, test = (stated(report.entry, split, name) or {} for split in ("dev", "test"))
        row = {"task": task["id"], "metric": task["headline"]}
        row |= {"dev": dev.get("value"), "dev_caveat": dev.get("caveat")}
        row |= {"test": test.get("value"), "stderr": test.get("stderr")}
        row |= {"n": test.get("n"), "caveat": test.get("caveat")}
        simple = beside(manifest, task=task)
        rows.append(row | {"baselines": {name: item["value"] for name, item in simple.items()}})
    return rows


def print_tasks(reports: Sequence[Report]) -> None:
    """A table of tasks and seeds."""
    from mtl.cli.common import caveat_lines, scores_text, simple_columns
    from mtl.fitting import fitted
    from mtl.report.suite_text import average_text

    rows = [(report, row) for report in reports for row in task_rows(report)]
    simple_names, simple_cells = simple_columns([row for _, row in rows])
    table = [
        [
            row["task"],
            report.run.seed,
            row["metric"],
            *scores_text(row),
            *simple,
            row["n"],
        ]
        for (report, row), simple in zip(rows, simple_cells, strict=True)
    ]
    if table:
        headers = ["task", "seed", "metric", "dev", "test ± se", *simple_names, "n"]
        lines = caveat_lines([row for _, row in rows])
        print(fitted(table, headers, keys=2) + lines)
        first = [row["metric"] for row in task_rows(next(r for r in reports if r.entry))]
        print(f"\n{average_text(Counter(first))}\n")
