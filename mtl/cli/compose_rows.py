"""``mtl.compose --rows``: own adapter and composition at several numbers of training rows."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mtl.cli import common
from mtl.errors import RequestError
from mtl.fitting import fitted_rows
from mtl.words import counted

if TYPE_CHECKING:
    from pathlib import Path

    from mtl.compose.best import Tried
    from mtl.compose.curve import CurvePlan, Step
    from mtl.compose.planning import Planned, Request
    from mtl.graph.select import Selection
    from mtl.runs import Report
    from mtl.runs.context import Context
    from mtl.zoo import Entry


ROWS = "run.max_train_samples"
"""The setting that a curve goes along."""


def add_options(parser: Any) -> None:
    """Add the options to the parser of ``mtl.compose``."""
    rows = parser.add_argument_group("a learning curve")
    rows.add_argument(
        "--rows",
        nargs="+",
        type=str,
        metavar="N",
        help="train own adapter and composition on so many rows each (16,50,100), as with "
        "--max-train-samples N, and show both and the gain as a table and a picture",
    )
    rows.add_argument("--curve", metavar="PNG", help="the picture [TARGET-METHOD-rows.png here]")
    rows.add_argument(
        "--own-set",
        nargs="+",
        type=str,
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="settings of the own adapters that --rows trains [the recipe's]",
    )


def refuse(options: Namespace) -> None:
    """Refuse options that say nothing without ``--rows``."""
    for name in ("curve", "own_set"):
        if options.rows is None and getattr(options, name):
            flag = f"--{name.replace('_', '-')}"
            raise RequestError(f"{flag} says something of a curve: give --rows N…, too.")


def run(
    options: Namespace,
    request: Request,
    context: Context,
    tried: Callable[[Tried], object],
    picked: Callable[[Selection], object],
) -> int:
    """Make the runs of a curve, and show it.

    Raises:
        RequestError: see :func:`mtl.compose.curve.plan_curve`.
    """
    from mtl.cli.grid import Point
    from mtl.cli.tell import tell
    from mtl.compose.curve import plan_curve
    from mtl.graph.opening import adding_evidence
    from mtl.report.controls import Controls
    from mtl.report.curve import curve_of, draw_curve, render
    from mtl.report.tables import by_group
    from mtl.runs import execute_all
    from mtl.runs.settings import parse_set

    path = _picture(options, request)
    plan = plan_curve(request, context, _numbers(options.rows), parse_set(options.own_set))
    if plan.note:
        common.say(f"note: {plan.note}")
    if options.dry_run:
        return _dry_run(plan, context, options, tried)
    _tell_own(plan, context, parse_set(options.own_set))
    evidence = adding_evidence(context.workspace.zoo, options.graph, common.say)
    trained = (
        execute_all(plan.missing, context.workspace, wait=options.wait) if plan.missing else []
    )
    reports: list[Report] = []
    points: dict[int, tuple[list[Entry], list[Entry]]] = {}
    twins: list[Entry] = []
    said: set[str] = set()
    for step in plan.steps if all(report.entry for report in trained) else ():
        own = execute_all(step.own, context.workspace, wait=options.wait)
        planned, waiting = step.compositions(picked=picked, tried=tried)
        _say_once(planned, said)
        if step is plan.steps[0]:  # those of other steps differ in their rows
            point = Point(request.asked.method, step.context.overrides)
            tell([(point, found.runs) for found in planned], step.context)
        composed = [
            report
            for found in planned
            for report in execute_all(found.runs, context.workspace, evidence, wait=options.wait)
        ]
        for each in waiting:
            common.say(
                f"{counted(len(each.asked.seeds), 'composition')} with {step.rows:,} rows "
                f"not made: the own adapter of seed {each.asked.source_seed} is not there."
            )
        reports += [*own, *composed]
        seeds = set(request.asked.seeds)
        made = [r.entry for r in composed if r.entry is not None]
        twins += [entry for entry in made if entry.manifest.control]
        points[step.rows] = (
            [r.entry for r in own if r.entry is not None and r.run.seed in seeds],
            [entry for entry in made if not entry.manifest.control],
        )
    curve = curve_of(points, Controls(by_group(twins).values()))
    if curve is not None and path is not None:
        draw_curve(curve, path)
    drawn = str(path) if curve is not None and path is not None else None
    if options.json:
        print(
            json.dumps(
                {
                    "command": "compose",
                    "curve": curve.to_dict() if curve else None,
                    "left_out": plan.note or None,
                    "picture": drawn,
                    "trained": common.report_rows(trained, choice=False),
                    "runs": common.report_rows(reports, choice=False),
                }
            )
        )
    else:
        common.print_reports([*trained, *reports], choice=False)
        print(f"\n{render(curve)}" if curve else "")
        print(f"picture: {drawn}" if drawn else "")
    return common.exit_code([*trained, *reports])


def _tell_own(plan: CurvePlan, context: Context, own: Mapping[str, Any]) -> None:
    """What the own adapters train at: not at what was asked of the compositions."""
    from mtl.cli.grid import Point
    from mtl.cli.tell import tell
    from mtl.engine.settings import ROW_SETTINGS
    from mtl.runs.settings import Overrides

    asked = context.overrides
    rows = {k: v for k, v in asked.values.items() if k.removeprefix("run.") in ROW_SETTINGS}
    places = {**asked.places, **dict.fromkeys(own, "--own-set"), ROWS: "--rows"}
    planned = []
    for step in plan.steps:
        values = {**own, **rows, ROWS: step.context.overrides.values[ROWS]}
        planned += [(Point(run.method, Overrides(values, places)), [run]) for run in step.own]
    theirs = [key.removeprefix("run.") for key in asked.values if key not in rows]
    if theirs and not own:
        common.say(
            f"note: {', '.join(theirs)}: of the compositions only; the own adapters train by the "
            "recipe, or as --own-set KEY=VALUE says"
        )
    common.note_rates(planned, context)
    tell(planned, context)


def _numbers(texts: list[str]) -> list[int]:
    from mtl.cli.options import names

    found = names(texts)
    wrong = next((text for text in found if not text.isascii() or not text.isdigit()), None)
    if wrong is not None:
        raise RequestError(f"--rows takes whole numbers of training rows, not {wrong!r}.")
    return [int(text) for text in found]


def _picture(options: Namespace, request: Request) -> Path | None:
    """Where the picture goes; without matplotlib there is none, unless it was asked for."""
    from mtl.files import user_path
    from mtl.report.heatmap import new_figure

    name = options.curve or f"{request.spec.name}-{request.asked.method}-rows.png"
    try:
        new_figure(1, 1, 130)
    except RequestError as error:
        if options.curve:
            raise
        common.say(f"note: no picture will be made. {error}")
        return None
    return user_path(name, "--curve")


def _say_once(planned: list[Planned], said: set[str]) -> None:
    """Notes and warnings that no earlier number of rows had."""
    from mtl.engine.progress import quiet

    for found in planned:
        for text in [*(found.notes if not quiet() else ()), *found.warnings]:
            if text not in said:
                print(text, file=sys.stderr)
                said.add(text)


def _dry_run(
    plan: CurvePlan, context: Context, options: Namespace, tried: Callable[[Tried], object]
) -> int:
    """Every run; of compositions whose own source is still to be trained, how many."""
    from mtl.cli.plan import plan_rows

    rows = plan_rows(plan.missing, context.workspace)
    for step in plan.steps:
        rows += plan_rows(step.own, context.workspace)
        waiting = [request for request, _ in step.requests]
        if not plan.missing:
            planned, waiting = step.compositions(tried=tried, dry_run=True)
            for found in planned:
                rows += plan_rows(found.runs, context.workspace)
        rows += [_later(step, request, seed) for request in waiting for seed in request.asked.seeds]
    if options.json:
        print(json.dumps({"dry_run": True, "runs": rows, "left_out": plan.note or None}))
        return 0
    print(fitted_rows(rows, keys=3, missing="–"))
    states = [row["state"] for row in rows]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    print(
        f"\n{counted(len(rows), 'run')}: {counts}. A run is waiting until its sources are trained. "
        "Nothing was run (--dry-run)."
    )
    return 0


def _later(step: Step, request: Request, seed: int) -> dict[str, Any]:
    """A row like those of :func:`mtl.cli.plan.plan_rows`, of a run that has no sources yet."""
    return {
        "task": request.spec.id,
        "method": request.asked.method + (" (control)" if request.asked.control else ""),
        "seed": seed,
        "state": "waiting",
        "runhash": None,
        "train": step.rows,
        "ref": None,
    }
