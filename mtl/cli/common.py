"""What the training commands share: options, and from options to rooms."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from mtl.engine.launch import launch
from mtl.engine.settings import RunSettings
from mtl.errors import HeldError
from mtl.fitting import fitted
from mtl.words import printable_lines

if TYPE_CHECKING:
    from argparse import Namespace

    from mtl.cli.grid import Grid, Point
    from mtl.cli.options import Parser
    from mtl.runs import Report, Run
    from mtl.runs.context import Context
    from mtl.tasks import Recipe, Suite
    from mtl.zoo import Entry


def make_parser(
    prog: str, description: str, *, several: bool = True, beside: bool = True
) -> Parser:
    """A parser with the options that every training command has.

    Args:
        several: settings of the run take several values, a run for each (:mod:`mtl.cli.grid`).
        beside: its runs can go side by side (:mod:`mtl.runs.beside`).
    """
    from mtl.cli.options import Parser, Several, option_type

    parser = Parser(prog=prog, description=description)
    parser.add_argument("--config", metavar="FILE", help="YAML file with any of these options")
    parser.add_argument("--model", type=str, help="Hub name, folder, or 'demo' [MTL_MODEL, suite]")
    parser.add_argument(
        "--recipe",
        type=str,
        help="settings of a paper, or 'none' for those of the method's own [the suite's]",
    )
    parser.add_argument("--protocol", type=str, help="how data are split [the suite's]")
    add_places(parser)
    parser.add_argument(
        "--data-root", type=str, help="local mirror of Hub datasets [MTL_DATA_ROOT]"
    )
    parser.add_argument(
        "--set",
        nargs="+",
        type=str,
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="settings of the method or the run, as in 'mtl methods ls'; several values of one, a "
        "run for each, follow it with spaces: lr=1e-3 3e-3 dropout=0",
    )
    parser.add_argument(
        "--deterministic", action="store_true", help="bit-equal reruns on a GPU, too"
    )
    parser.add_argument(
        "--track", type=str, help="show training in tensorboard, wandb, mlflow or trackio"
    )
    parser.add_argument(
        "--wait", action="store_true", help="wait for runs that another process is at"
    )
    if beside:
        parser.add_argument(
            "--side-by-side",
            type=str,
            default="1",
            metavar="N",
            help="let N runs that fit go together on one encoder, or auto: as many as pay",
        )
    parser.add_argument("--dry-run", action="store_true", help="say what would run, run nothing")
    parser.add_argument("--json", action="store_true", help="one line of JSON on standard output")
    parser.add_argument(
        "--verbose",
        action="store_true",
        help="without a terminal, a line per evaluation and not only per run",
    )
    if several:
        parser.add_argument(
            "--print_config",
            "--print-config",
            action="store_true",
            help="print what would run, resolved, as a file for --config; run nothing",
        )
    group = parser.add_argument_group(
        "settings of the run (defaults: the recipe's)"
        + ("; several values are several runs" if several else "")
    )
    how: dict[str, Any] = {"action": Several, "nargs": "+"} if several else {}
    for name, kind, text in run_options():
        flag = f"--{name.replace('_', '-')}"
        group.add_argument(flag, type=option_type(kind), help=text, **how)
    return parser


def add_methods(parser: Parser, text: str, default: str | None = None) -> None:
    """``--method``, of which there may be several; required without a default."""
    from mtl.cli.options import Several

    parser.add_argument(
        "--method",
        action=Several,
        nargs="+",
        type=str,
        default=default,
        required=default is None,
        metavar="METHOD",
        help=text,
    )


def add_places(parser: Any) -> None:
    """``--zoo`` and ``--runs``."""
    parser.add_argument("--zoo", type=str, help="folder of the zoo [MTL_ZOO, ./adapters_zoo]")
    parser.add_argument("--runs", type=str, help="folder of run folders [MTL_RUNS, ./runs]")


def run_options() -> list[tuple[str, Any, str]]:
    """Name, type and help of every field of the run settings, from the dataclass itself."""
    from docstring_parser import parse

    texts = {
        name.strip(): " ".join((item.description or "").split())
        for item in parse(RunSettings.__doc__ or "").params
        for name in item.arg_name.split(",")
    }
    hints = get_type_hints(RunSettings)
    return [(item.name, hints[item.name], texts.get(item.name, "")) for item in fields(RunSettings)]


def open_context(
    options: Namespace,
    grid: Grid,
    suite: Suite,
    command: str,
    argv: Sequence[str],
    check: Callable[[Recipe, Point], Any],
) -> Context:
    """Load the base and open the places that the options name (:mod:`mtl.runs.context`).

    Args:
        check: called with every point of the grid before the base is loaded, so that a wrong
            setting does not cost its loading.
    """
    from mtl.runs import context, open_workspace
    from mtl.runs.beside import parse_beside

    if options.json:
        os.environ["MTL_QUIET"] = "1"
    if options.verbose:
        os.environ["MTL_VERBOSE"] = "1"
    if launch().rank:
        # of the processes that `accelerate launch` starts, the first one speaks
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
    quieten()
    workspace = open_workspace(
        zoo=options.zoo,
        runs=options.runs,
        data_root=options.data_root,
        deterministic=options.deterministic,
        command=["python", "-m", *f"mtl.{command}".split(), *argv],
        model=options.model,
        tasks=[*named_tasks(options), *map(str, suite.files.values())],
        track=options.track,
        beside=parse_beside(getattr(options, "side_by_side", "1")),
    )
    return context.open_context(
        suite,
        model=options.model,
        recipe=options.recipe,
        protocol=options.protocol,
        overrides=grid.points[0].overrides,
        workspace=workspace,
        check=lambda recipe, _: [check(recipe, point) for point in grid.points],
    )


def say(text: str) -> None:
    """A remark, on standard error."""
    print(text, file=sys.stderr)


def named_tasks(options: Any) -> list[str]:
    """The tasks that a command line names, targets and sources among them, as they stand there."""
    from mtl.cli.options import names

    found: list[str] = []
    for option in ("task", "target", "targets", "sources"):
        value = getattr(options, option, None) or []
        found += names([value] if isinstance(value, str) else value)
    return [name.partition(":")[0] for name in found]


def quieten() -> None:
    """Progress bars and notes of the libraries only where a person watches.

    They are told through the environment, which they read when they are imported; those that are
    imported already, by a call.
    """
    import logging

    watched = sys.stderr.isatty() and os.environ.get("MTL_QUIET") != "1"
    logging.getLogger("transformers").setLevel(logging.ERROR)
    for library in ("datasets", "transformers"):
        os.environ[f"{library.upper()}_VERBOSITY"] = "error"
        loaded = sys.modules.get(library)
        if loaded is not None:
            loaded.logging.set_verbosity_error()
    if watched:
        return
    for name in ("HF_DATASETS_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_PROGRESS_BARS"):
        os.environ.setdefault(name, "1")
    if "datasets" in sys.modules:
        sys.modules["datasets"].disable_progress_bars()
    if "transformers" in sys.modules:
        sys.modules["transformers"].logging.disable_progress_bar()


def report_rows(reports: Sequence[Report], *, choice: bool = True) -> list[dict[str, Any]]:
    """One row per run for tables and ``--json``.

    Args:
        choice: whether the runs are there to choose among; those of a curve are all wanted.
    """
    from mtl.cli.variants import best_on_dev
    from mtl.runs.running import apart
    from mtl.zoo.caveats import stated
    from mtl.zoo.quality import beside, constant_of, remarks

    rows = []
    best, said = best_on_dev(reports) if choice else (set(), [])
    settings = apart([report.run for report in reports])
    for place, (report, own) in enumerate(zip(reports, settings, strict=True)):
        plan = report.run
        row: dict[str, Any] = {
            "task": plan.task_id,
            "method": plan.method,
            "seed": plan.seed,
            "status": report.status,
        }
        row |= {"settings": own} if own else {}
        row |= {"best_on_dev": place in best} if said else {}
        if report.entry is not None:
            manifest = report.entry.manifest
            headline = manifest.task["headline"]
            dev = stated(report.entry, "dev", headline) or {}
            test = stated(report.entry, "test", headline) or {}
            row |= {
                "metric": headline,
                "dev": dev.get("value"),
                "dev_caveat": dev.get("caveat"),
                "test": test.get("value"),
                "stderr": test.get("stderr"),
                "n": test.get("n"),
                "caveat": test.get("caveat"),
                "baselines": {name: item["value"] for name, item in beside(manifest).items()},
                "constant": (constant := constant_of(report.entry)),
                "remarks": remarks(manifest, constant),
                "steps": manifest.training["steps"],
                "seconds": manifest.training["seconds"],
                "ref": report.entry.ref,
                "digest": report.entry.digest,
            }
        elif isinstance(report.error, HeldError):
            row["held_by"] = report.error.who
        else:
            row["error"] = str(report.error)
        rows.append(row)
    return rows


def print_reports(reports: Sequence[Report], *, choice: bool = True) -> None:
    """The table at the end of a training command; see :func:`report_rows`."""
    from mtl.cli.variants import best_on_dev
    from mtl.zoo.settings import settings_text

    rows = report_rows(reports, choice=choice)
    lines = best_on_dev(reports)[1] if choice else []
    methods = len({row["method"] for row in rows}) > 1
    several = any("settings" in row for row in rows)
    simple_names, simple_cells = simple_columns(rows)
    table = [
        [
            row["task"],
            *([row["method"]] if methods else []),
            *([settings_text(row.get("settings", {}))] if several else []),
            row["seed"],
            row["status"],
            row.get("metric", ""),
            *scores_text(row),
            *simple,
            row.get("n", ""),
            row.get("steps", ""),
            f"{row['seconds']:.0f}" if "seconds" in row else "",
            row.get("ref", ""),
            *(["◀" if row.get("best_on_dev") else ""] if lines else []),
        ]
        for row, simple in zip(rows, simple_cells, strict=True)
    ]
    headers = ["task", *(["method"] if methods else []), *(["settings"] if several else [])]
    headers += ["seed", "status", "metric", "dev", "test ± se", *simple_names]
    headers += ["n", "steps", "s", "entry"]
    headers += ["best on dev"] if lines else []
    print(fitted(table, headers, keys=2) + caveat_lines(rows))
    if lines:
        print("\n" + "\n".join(lines))
    held = [row for row in rows if "held_by" in row]
    if held:
        are = "run is" if len(held) == 1 else "runs are"
        who = ", ".join(dict.fromkeys(row["held_by"] for row in held))
        print(
            f"{len(held)} {are} with {who}: what is finished there is in the zoo then. Run the "
            "same command again, with --wait to wait for it."
        )
    for row in rows:
        if row.get("remarks"):
            name = f"{row['task']} {row['method']} seed {row['seed']}"
            say(printable_lines(f"note: {name}: {'; '.join(row['remarks'])}"))


def simple_columns(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Titles of the baselines that some row has, and their values on test, row by row."""
    from mtl.zoo.quality import TITLES

    shown = [name for name in TITLES if any(name in row.get("baselines", ()) for row in rows)]
    cells = []
    for row in rows:
        values = [row.get("baselines", {}).get(name) for name in shown]
        cells.append(["" if value is None else f"{value:.4f}" for value in values])
    return [TITLES[name] for name in shown], cells


def scores_text(row: Mapping[str, Any]) -> tuple[str, str]:
    """Dev and test of a row as a table shows them."""
    from mtl.zoo.caveats import error_text, value_text

    if "test" not in row:
        return "", ""
    dev = {"value": row["dev"], "caveat": row["dev_caveat"]}
    return value_text(dev), error_text({**row, "value": row["test"]})


def caveat_lines(rows: Sequence[Mapping[str, Any]]) -> str:
    """What stands below a table of rows: why values in it are marked."""
    from mtl.zoo.caveats import footnotes

    return footnotes(
        (f"{split} {row['metric']} of {row['task']}", row.get(key))
        for row in rows
        for split, key in (("dev", "dev_caveat"), ("test", "caveat"))
        if "metric" in row
    )


def note_rates(planned: Sequence[tuple[Any, Sequence[Run]]], context: Context) -> None:
    """Say which rates of a recipe were made for larger encoders than this one."""
    from mtl.engine.progress import quiet
    from mtl.runs.fitting import rate_note

    if quiet():
        return
    notes = [
        rate_note(run, context.recipe, point.overrides) for point, runs in planned for run in runs
    ]
    for text in dict.fromkeys(filter(None, notes)):
        say(printable_lines(f"note: {text}"))


def exit_code(reports: Sequence[Report]) -> int:
    """1 if a run failed, else 0: one that another process is at has not."""
    return 1 if any(report.status == "failed" for report in reports) else 0


def note_unknown(entries: Iterable[Entry]) -> None:
    """Say of which entries the base is known by its weights alone."""
    from mtl.runs.loading import unknown_function
    from mtl.words import printable_lines

    said = unknown_function(entries)
    if said:
        print(printable_lines(f"note: {said}"), file=sys.stderr)
