"""``mtl.compose``: stage two, learn how a target uses frozen adapters of the zoo."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from mtl.cli import compose_rows

if TYPE_CHECKING:
    from mtl.compose.best import Tried
    from mtl.compose.planning import Asked, Planned
    from mtl.graph.select import Selection
    from mtl.runs import Report


def main(argv: Sequence[str]) -> int:
    from mtl.cli.common import add_methods, make_parser

    parser = make_parser(
        "mtl.compose",
        "Stage two: freeze source adapters of the zoo and learn, for a target task, how to use "
        "them; only omega and a new head train.",
    )
    parser.add_argument("--target", type=str, required=True, help="the target task, e.g. entail")
    parser.add_argument("--suite", type=str, help="the suite 'all' means [the target's]")
    parser.add_argument(
        "--sources",
        nargs="+",
        type=str,
        default=["all"],
        metavar="TASK",
        help="'all'; names of source tasks (task:method for one of another method, "
        "task:method/seedN-HASH for one of several entries; beside 'all', too); 'best' to search "
        "on dev which sources, used how; 'auto' to pick by transferability; or graph:k=3 for the "
        "strongest edges of the graph",
    )
    add_methods(parser, "a composition; several make a run each", "scalearn")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="one run per seed")
    parser.add_argument(
        "--source-method", type=str, default="pfeiffer", help="how sources were made"
    )
    parser.add_argument(
        "--source-seed",
        type=str,
        metavar="SEED",
        help="seed of the sources, or 'run' for that of each run [the recipe's, else 0]",
    )
    parser.add_argument("--without-own", action="store_true", help="leave out the target's adapter")
    parser.add_argument(
        "--allow-missing", action="store_true", help="use the sources that are there"
    )
    parser.add_argument(
        "--probe",
        nargs="*",
        type=float,
        metavar="SCALE",
        help="probe instead of compose: one source, or the grid of two, at fixed scales [the "
        "paper's seven]; only a head learns",
    )
    parser.add_argument(
        "--pick",
        choices=("best-dev",),
        help="of several entries that could be a source, the best on dev",
    )
    parser.add_argument(
        "--train-missing", action="store_true", help="first train the sources that the zoo lacks"
    )
    parser.add_argument(
        "--trials",
        type=float,
        metavar="N",
        help="full runs that finding the best may cost [12]",
    )
    parser.add_argument(
        "--time",
        type=float,
        metavar="MINUTES",
        help="minutes that finding the best may take; the same line again goes on from there",
    )
    parser.add_argument(
        "--control",
        type=str,
        metavar="HOW",
        help="a control: 'permuted', 'gaussian' or 'rotated' twins that know nothing in place of "
        "the other tasks' sources, all else the same; mtl.report shows the gain over it",
    )
    parser.add_argument(
        "--gate",
        type=str,
        metavar="COLUMN",
        help="a gate per source for every group of rows: those with one value of this column of "
        "the data, such as user; as --set gate=COLUMN",
    )
    group = parser.add_argument_group("how many sources auto and graph:k=3 pick")
    group.add_argument("--budget", type=int, help="sources at most, beside the target's own [5]")
    group.add_argument("--min-gain", type=float, help="least measured or expected transfer")
    parser.add_argument("--graph", type=str, help="folder of the graph [MTL_GRAPH, ZOO.graph]")
    compose_rows.add_options(parser)
    options = parser.parse_args(list(argv))
    compose_rows.refuse(options)
    if options.probe is not None:
        options.method = "probe"
    if options.gate is not None:  # a setting like the others: in a grid, a file, a manifest
        options.set, options.gate = [*options.set, f"gate={options.gate}"], None

    from mtl.cli import common, tell
    from mtl.cli.compose_runs import (
        beside_real,
        lacking_runs,
        missing_text,
        plan_point,
        search_dict,
        search_told,
    )
    from mtl.cli.grid import read_grid, refuse_several, refuse_twins
    from mtl.cli.options import names
    from mtl.cli.print_config import config_text
    from mtl.compose.naming import run_names
    from mtl.compose.per_source import told
    from mtl.compose.planning import Asked, read_request
    from mtl.compose.probe import SCALES
    from mtl.compose.sources import ALL
    from mtl.engine.progress import quiet
    from mtl.errors import RequestError
    from mtl.graph.opening import adding_evidence
    from mtl.graph.select import selection_text
    from mtl.runs import execute_all

    grid = read_grid(options, parser)
    asked = Asked(
        target=options.target,
        suite=options.suite,
        protocol=options.protocol,
        sources=names(options.sources),
        method=grid.points[0].method,
        seeds=options.seeds,
        source_method=options.source_method,
        source_seed=options.source_seed,
        own=not options.without_own,
        probe=None if options.probe is None else options.probe or SCALES,
        train_missing=options.train_missing,
        allow_missing=options.allow_missing,
        budget=options.budget,
        min_gain=options.min_gain,
        graph=options.graph,
        trials=options.trials,
        minutes=options.time,
        control=options.control,
        pick=options.pick,
        zoo=options.zoo,
    )
    if asked.best:
        refuse_several(grid, "--sources best searches once: give one.")
    if asked.probe is not None:
        refuse_several(grid, "--probe shows a table of scales: give one.")
    if options.rows is not None:
        refuse_several(grid, "--rows draws a curve of one: give one.")
    requests = {
        point.method: read_request(replace(asked, method=point.method)) for point in grid.points
    }
    request = requests[asked.method]
    context = common.open_context(
        options,
        grid,
        request.suite,
        "compose",
        argv,
        lambda recipe, point: requests[point.method].check(recipe, point.overrides),
    )
    nothing = options.dry_run or options.print_config
    silent = options.json or options.print_config
    said: set[str] = set()

    def once(text: str) -> None:
        if not silent and text not in said:
            said.add(text)
            print(f"{text}\n", flush=True)

    def picked(selection: Selection) -> None:
        once(selection_text(selection, request.spec.id))

    if options.rows is not None:
        if options.print_config:
            raise RequestError("--print-config is for one number of rows: leave out --rows.")
        with showing_trials(asked, silent) as tried:
            return compose_rows.run(options, request, context, tried, picked)
    founds: list[Planned] = []
    with showing_trials(asked, silent or nothing) as tried:
        for point in grid.points:
            found = plan_point(
                requests[point.method],
                point,
                replace(context, overrides=point.overrides),
                picked=picked,
                tried=tried,
                nothing=nothing,
                wait=options.wait,
            )
            founds.append(found)
            if found.choice:
                once(found.choice.text())
            if not found.runs and not nothing:  # sources failed to train
                break
    trained = [report for found in founds for report in found.trained]
    missing = {run.runhash: run for found in founds for run in found.missing}
    planned = [(p, found.runs) for p, found in zip(grid.points, founds, strict=False)]
    refuse_twins(planned, grid)
    if options.print_config:
        if missing:
            raise RequestError(
                "--print-config: the zoo lacks sources, and what is composed depends on them. "
                "--dry-run shows the runs that make them."
            )
        fixed = len({tuple(e.digest for e in own) for f in founds for own, _ in f.composed}) == 1
        pinned = run_names(founds[0].sources) if fixed and not asked.best else []
        print(config_text(planned, grid, context, options, pinned))
        return 0
    if options.dry_run and missing:  # what would be composed depends on what is trained
        lacking = lacking_runs(list(missing.values()), founds[0].limits, request)
        search = search_dict(request, len(request.wanted)) if asked.best else None
        if not options.json:
            print(missing_text(list(missing.values()), grid.points[0], context) + "\n")
            if asked.best:
                print(search_told(request, len(request.wanted)) + "\n")
        tell.print_dry_run(lacking, context, as_json=options.json, search=search)
        return 0
    if not all(found.runs for found in founds):  # a source that it trains itself is not there
        if options.json:
            rows = common.report_rows(trained)
            print(json.dumps({"command": "compose", "trained": rows, "runs": []}))
        else:
            common.print_reports(trained)
            print(f"Nothing was composed for {request.spec.id}: it needs these sources.")
        return common.exit_code(trained)
    for found in founds:
        for own, _ in found.composed:
            common.note_unknown(own)
    for text in dict.fromkeys(text for found in founds for text in found.notes):
        if not quiet():
            print(text, file=sys.stderr)
    for text in dict.fromkeys(text for found in founds for text in found.warnings):
        print(text, file=sys.stderr)
    common.note_rates(planned, context)
    if options.dry_run:
        search = search_dict(request, len(founds[0].sources)) if asked.best else None
        text = search_told(request, len(founds[0].sources)) if asked.best else ""
        tell.print_dry_run(planned, context, as_json=options.json, candidates=text, search=search)
        return 0
    plan = None if asked.best else tell.tell(planned, context)
    evidence = adding_evidence(context.workspace.zoo, options.graph, common.say)
    runs = [run for _, listed in planned for run in listed]
    reports = execute_all(runs, context.workspace, evidence, wait=options.wait)
    by_source = told(runs[0].method_settings, runs[0].method)
    first = founds[0]
    if options.json:
        print(
            json.dumps(
                {
                    "command": "compose",
                    "sources": [entry.ref for own, _ in first.composed for entry in own],
                    "trained": common.report_rows(trained),
                    "choice": first.choice.to_dict() if first.choice else None,
                    "selection": first.selection.to_dict() if first.selection else None,
                    "passed_over": first.passed_over if ALL in asked.sources else None,
                    "by_source": by_source or None,
                    "runs": common.report_rows(reports),
                    "plan": plan,
                }
            )
        )
    else:
        common.print_reports(reports)
        if by_source and options.probe is None:
            print(f"\n{by_source[0].upper()}{by_source[1:]}")
        if options.probe is not None:
            tasks = [entry.manifest.task["id"] for entry in first.sources]
            print("\n" + _probe_table(reports, tasks))
        if asked.control:
            print("\n" + beside_real(reports, context.workspace.zoo))
    return common.exit_code(reports)


@contextmanager
def showing_trials(asked: Asked, silent: bool) -> Iterator[Callable[[Tried], object]]:
    """A bar over the trials of a search, where a terminal watches; elsewhere a line for each."""
    from tqdm import tqdm

    from mtl.compose.best import BUDGET
    from mtl.engine.progress import quiet

    if not asked.best or silent or quiet():
        yield lambda tried: None
        return
    with tqdm(
        total=asked.trials or BUDGET,
        desc=f"best sources of {asked.target}",
        unit="run",
        leave=False,
        disable=None,
        file=sys.stderr,
    ) as bar:

        def tell(tried: Tried) -> None:
            bar.update(tried.cost)
            if bar.disable:
                dev = "–" if tried.dev is None else f"{tried.dev:.4f}"
                print(f"{tried.stage}: {tried.candidate}: dev {dev}", file=sys.stderr, flush=True)

        yield tell


def _probe_table(reports: Sequence[Report], sources: Sequence[str]) -> str:
    """Mean headline metric over seeds by the scale of each source; two sources make a grid."""
    from tabulate import tabulate

    found: dict[tuple[float, ...], list[float]] = {}
    for report in reports:
        if report.entry is not None:
            headline = report.entry.manifest.headline()
            assert headline is not None
            key = tuple(report.run.method_settings.numbers())
            found.setdefault(key, []).append(headline["value"])
    means = {key: sum(values) / len(values) for key, values in found.items()}
    if len(sources) == 1:
        table = [[scale, f"{value:.4f}"] for (scale,), value in means.items()]
        return tabulate(table, headers=[f"scale of {sources[0]}", "test, mean over seeds"])
    columns = sorted({key[1] for key in means})
    rows = sorted({key[0] for key in means})
    grid = [
        [row, *(f"{means[row, c]:.4f}" if (row, c) in means else "–" for c in columns)]
        for row in rows
    ]
    head = f"test, mean over seeds; down: scale of {sources[0]}, across: scale of {sources[1]}"
    return f"{head}\n" + tabulate(grid, headers=["", *map(str, columns)])
