"""``mtl.report``: results side by side; heat map; curve; ``--errors``: what an entry gets wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mtl.cli import (
    report_against,
    report_curve,
    report_curves,
    report_errors,
    report_page,
    report_paper,
    report_published,
    report_tests,
    report_variance,
)
from mtl.cli.options import Parser
from mtl.zoo.place import option_of, zoo_option

if TYPE_CHECKING:
    from mtl.zoo import Entry


def main(argv: Sequence[str]) -> int:
    parser = Parser(prog="mtl.report", description=__doc__)
    parser.add_argument("--zoo", help="folder of the zoo [MTL_ZOO, ./adapters_zoo]")
    parser.add_argument("--suite", help="only entries of this suite; its file: of all its tasks")
    parser.add_argument("--target", help="only this task")
    parser.add_argument("--seeds", nargs="+", type=int, help="only runs of these seeds")
    parser.add_argument(
        "--where",
        nargs="+",
        metavar="KEY=VALUE",
        default=[],
        help="only runs with these settings, e.g. lr=1e-3 max_steps=96",
    )
    parser.add_argument("--heatmap", metavar="PNG", help="draw the weights of a composition")
    parser.add_argument(
        "--curve",
        metavar="PNG",
        help="draw own adapter, composition and gain over the number of training rows",
    )
    parser.add_argument(
        "--curves", metavar="PNG", help="draw dev over the steps of training, of every run"
    )
    parser.add_argument("--runs", help="run folders, for --curves and --html [MTL_RUNS, ./runs]")
    parser.add_argument("--method", help="the composition to draw [of a heat map: scalearn]")
    parser.add_argument(
        "--entry",
        metavar="REF",
        help="draw the composition of this entry, over its seeds: reference, last parts or digest",
    )
    parser.add_argument(
        "--ensemble",
        action="store_true",
        help="how far averaging stored answers would go: entries of one --target, chosen on dev",
    )
    parser.add_argument(
        "--pick",
        choices=("best-dev",),
        help="of variants that differ in settings, data or sources only the best on dev",
    )
    parser.add_argument(
        "--tests",
        action="store_true",
        help="test every composition against the own adapter, over seeds and examples together",
    )
    parser.add_argument(
        "--html",
        metavar="FILE",
        help="write all of it as one page; with --errors that report",
    )
    parser.add_argument(
        "--variance",
        action="store_true",
        help="how much of the spread comes from seeds of both stages, few-shot draws, test rows",
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    report_published.add_options(parser)
    report_paper.add_options(parser)
    report_errors.add_options(parser)
    options = parser.parse_args(list(argv))
    if options.published is not None:
        return report_published.show(options)
    report_errors.refuse(options)
    published = None if options.errors else report_against.asked(options)
    if options.errors:
        return report_errors.show(options)
    paper, page = report_paper.asked(options), report_page.asked(options)

    from pathlib import Path

    from mtl.errors import RequestError, did_you_mean
    from mtl.report import render, render_suite, results, suite_tables
    from mtl.report.tables import compared_with, having
    from mtl.tasks import load_task
    from mtl.tasks.yamls import is_file_name
    from mtl.words import printable, printable_lines
    from mtl.zoo import open_zoo
    from mtl.zoo.merged import again, again_text, once

    zoo = open_zoo(options.zoo)
    if options.target and is_file_name(options.target):
        options.target = load_task(options.target).id
    entries = zoo.entries(suite=options.suite, task=options.target)
    if options.seeds:
        entries = [entry for entry in entries if entry.manifest.seed in options.seeds]
    entries = having(entries, options.where)
    if not entries:
        asked = {
            "suite": options.suite,
            "target": options.target,
            "seeds": " ".join(map(str, options.seeds or [])),
            "where": " ".join(options.where),
        }
        wanted = " ".join(f"--{name} {value}" for name, value in asked.items() if value)
        tasks = {summary.task for summary in zoo.summaries()}
        guess = "" if options.target in tasks else did_you_mean(options.target or "", tasks)
        raise RequestError(
            f"The zoo {zoo.root} holds no entry{f' for {wanted}' if wanted else ''}; "
            f"python -m mtl.zoo ls{zoo_option(zoo.root)} lists what it has, python -m mtl.train"
            f"{zoo_option(zoo.root)} makes entries.{guess}"
        )
    twice = again(entries)
    for line in again_text(entries):
        print(printable(f"note: {line}"), file=sys.stderr)
    everything, entries = entries, once(entries)
    if paper:
        return report_paper.show(options, entries, zoo.entries())
    if page:
        return report_page.show(options, argv, zoo, everything, published)
    if published:
        return report_against.show(options, published, entries)
    beside = compared_with(entries, zoo) if options.suite or options.where else []
    if options.tests:
        return report_tests.show(options, entries, beside)
    if options.variance:
        return report_variance.show(options, entries)
    named = zoo.get(options.entry) if options.entry else None
    if named and not (options.heatmap or options.curve or options.curves):
        raise RequestError(
            "--entry says what --heatmap or --curve draws: give --heatmap PNG or --curve PNG, too."
        )
    if options.curves:
        return report_curves.show(options, entries)
    if options.curve:
        return report_curve.show(options, entries, named, beside)
    if options.ensemble:
        from mtl.report.ensemble import ensemble_of

        together = ensemble_of(
            [e for e in entries if e.manifest.kind != "joint" and not e.manifest.control]
        )
        if options.json:
            print(json.dumps({"command": "report", "ensemble": together.to_dict()}))
        else:
            print(printable_lines(together.text()))
        return 0
    rows = results(entries, pick=options.pick, beside=beside)
    tables = []
    if not options.target:
        # a table per suite where one is asked for, or where something covers several tasks at once
        joint = {entry.manifest.suite for entry in entries if entry.manifest.kind == "joint"}
        chosen = [e for e in entries if options.suite or e.manifest.suite in joint]
        found = suite_tables(chosen, zoo.entries(), options.suite) if chosen else []
        tables = [table for table in found if len(table.tasks) > 1]
    if not rows and not tables:
        suites = sorted({entry.manifest.suite for entry in entries})
        raise RequestError(
            f"Only joint models of the zoo {zoo.root} were trained on {options.target}; a suite's "
            f"table shows them: mtl.report --suite {' or '.join(suites)}."
        )
    drawn = None
    if options.heatmap:
        from mtl.report import draw_heatmap

        chosen = runs_to_draw(entries, named, options.method, options.pick)
        with zoo.reading(*chosen):
            draw_heatmap(chosen, Path(options.heatmap))
        drawn = options.heatmap
    if options.json:
        lines = [row.to_dict() for row in rows]
        shown = [table.to_dict() for table in tables]
        several = [item.to_dict() for item in twice]
        told = {"rows": lines, "suites": shown, "heatmap": drawn, "twice": several}
        print(json.dumps(told))
        return 0
    text = "\n\n".join([*([render(rows)] if rows else []), *map(render_suite, tables)])
    print(printable_lines(text))
    if drawn:
        print(f"heat map: {drawn}")
    return 0


def runs_to_draw(
    entries: Sequence[Entry], wanted: Entry | None, method: str | None, pick: str | None = None
) -> list[Entry]:
    """The runs of one composition that differ in their seed only.

    Args:
        entries: what --suite, --target and --seeds leave.
        wanted: one of the composition's entries; None where ``method`` alone must be enough.
        pick: ``best-dev`` for the best on dev where several fit.

    Raises:
        RequestError: no or several compositions fit; lists one entry of each.
    """
    from mtl.errors import RequestError
    from mtl.report.picking import BEST_DEV, best_by_dev, dev_of
    from mtl.report.tables import by_group, group_of

    groups = by_group(
        entry
        for entry in entries
        if entry.manifest.composes or (wanted is not None and entry.manifest.control)
    )
    if wanted is not None:
        if wanted.manifest.kind != "composition":
            raise RequestError(
                f"--entry {wanted.ref} is no composition; python -m mtl.zoo ls --kind composition"
                f"{option_of(wanted)} lists those."
            )
        if method not in (None, wanted.manifest.method):
            raise RequestError(
                f"--entry {wanted.ref} is of {wanted.manifest.method}, not of --method {method}."
            )
        joined = (runs for runs in groups.values() if any(run.ref == wanted.ref for run in runs))
        its = groups.get(group_of(wanted)) or next(joined, None)
        if its is None:
            raise RequestError(
                f"--entry {wanted.ref} is not among what --suite, --target and --seeds leave."
            )
        return its
    named = method or "scalearn"
    fitting = [runs for runs in groups.values() if runs[0].manifest.method == named]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        there = sorted({runs[0].manifest.method for runs in groups.values()})
        said = f"there is {', '.join(there)} (--method)" if there else "there is none at all"
        raise RequestError(f"--heatmap: no composition of {named} to draw; {said}.")
    if pick == BEST_DEV:
        best = best_by_dev([[dev_of(entry) for entry in runs] for runs in fitting])
        if best is not None:
            return fitting[best]
    listed = "\n  ".join(
        f"{runs[0].ref}  {len(runs[0].manifest.parents)} sources "
        f"({', '.join(p['task'].rpartition('/')[2] for p in runs[0].manifest.parents)}), "
        f"{runs[0].manifest.data['sizes'].get('train', 0)} training rows, {len(runs)} seeds"
        for runs in sorted(fitting, key=lambda runs: runs[0].ref)
    )
    raise RequestError(
        f"--heatmap draws one composition over its seeds; {len(fitting)} of {named} fit. Say which "
        f"with --entry:\n  {listed}"
    )
