"""``mtl.train``: stage one, one adapter per task and seed into the zoo."""

from __future__ import annotations

import json
from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    from mtl.cli.common import make_parser

    parser = make_parser(
        "mtl.train",
        "Stage one: train one adapter per task and seed on a frozen encoder, and put it with its "
        "head into the zoo. Finished runs are skipped, interrupted ones go on.",
    )
    parser.add_argument("--suite", type=str, help="train all tasks of a suite, e.g. demo")
    parser.add_argument(
        "--task", nargs="+", type=str, default=[], metavar="TASK", help="only these tasks"
    )
    parser.add_argument("--method", type=str, default="pfeiffer", help="see mtl.methods ls")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="one run per seed")
    options = parser.parse_args(list(argv))

    from mtl.cli import common
    from mtl.cli.options import names
    from mtl.compose.composition import COMPOSITIONS
    from mtl.methods import find_method
    from mtl.runs import execute_all
    from mtl.runs.context import check_seeds, specs_of, suite_of
    from mtl.train import plan_adapters, resolve_train

    hint = ""
    if options.method in COMPOSITIONS:
        hint = f"That is stage two: python -m mtl.compose --method {options.method} --target TASK."
    method = find_method(options.method, hint)
    tasks = names(options.task)
    suite = suite_of(options.suite, tasks)
    specs = specs_of(suite, tasks)
    context = common.open_context(
        options,
        suite,
        "train",
        argv,
        lambda recipe, overrides: [
            resolve_train(spec, method, recipe, overrides) for spec in specs
        ],
    )
    plans = plan_adapters(
        context,
        specs,
        method=options.method,
        seeds=check_seeds(options.seeds),
    )
    if options.dry_run:
        common.print_dry_run(plans, context.workspace, as_json=options.json)
        return 0
    reports = execute_all(plans, context.workspace, wait=options.wait)
    if options.json:
        print(json.dumps({"command": "train", "runs": common.report_rows(reports)}))
    else:
        common.print_reports(reports)
    return common.exit_code(reports)
