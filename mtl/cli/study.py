"""``mtl.study``: a matrix of runs as one file: plan it, run it, watch it."""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from mtl.cli.options import Parser

if TYPE_CHECKING:
    from mtl.study import Places, Study, StudyPlan
    from mtl.study.bill import Bill
    from mtl.study.engines import Engine

ENGINES = ("local", "ray")


def main(argv: Sequence[str]) -> int:
    parser = Parser(prog="mtl.study", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    plan = _add(commands, "plan", "the runs of a study: what is there, what is missing, the bill")
    plan.add_argument("--each", action="store_true", help="a line per run, not per task")
    plan.add_argument(
        "--probe", action="store_true", help="time two steps where no finished run tells the cost"
    )
    run = _add(commands, "run", "run what is missing; the same line again goes on")
    run.add_argument("--engine", choices=ENGINES, default="local", help="who runs it [local]")
    run.add_argument(
        "--workers", type=int, metavar="N", help="worker processes [one per GPU; cores / threads]"
    )
    run.add_argument(
        "--address", metavar="HOST:PORT", help="of a Ray cluster, or auto [Ray on this machine]"
    )
    run.add_argument(
        "--per-gpu", type=int, metavar="N", help="runs that share a GPU, with --engine ray [1]"
    )
    run.add_argument(
        "--threads", type=int, metavar="N", help="CPU threads of a run [the file's, else 1]"
    )
    run.add_argument(
        "--smoke",
        action="store_true",
        help="every cell for four steps on a tiny random base and 32 rows, and keep nothing",
    )
    suggest = _add(commands, "suggest", "which runs decide most comparisons in a given time")
    suggest.add_argument("--hours", type=float, required=True, metavar="H", help="of one worker")
    suggest.add_argument(
        "--probe", action="store_true", help="time two steps where no finished run tells the cost"
    )
    _add(commands, "status", "what became of it so far, and who is at it")
    commands.add_parser("ls", help="the studies that have a name", description="the studies")
    options = parser.parse_args(list(argv))
    if options.command == "ls":
        return _ls()

    from mtl.cli.common import quieten
    from mtl.runs.beside import parse_beside
    from mtl.study import Places, read_study

    if options.json:
        os.environ["MTL_QUIET"] = "1"
    quieten()
    study = read_study(options.file)
    places = Places(
        zoo=options.zoo,
        runs=options.runs,
        data_root=options.data_root,
        deterministic=getattr(options, "deterministic", False),
        track=getattr(options, "track", None),
        track_group=study.name,
        beside=parse_beside(getattr(options, "side_by_side", "1")),
    )
    return _DOORS[options.command](study, places, options)


def _add(commands: Any, name: str, text: str) -> Any:
    from mtl.cli.common import add_places

    parser = commands.add_parser(name, help=text, description=text)
    parser.add_argument("file", metavar="FILE", help="a study: its YAML file, or its name")
    add_places(parser)
    parser.add_argument(
        "--data-root", type=str, help="local mirror of Hub datasets [MTL_DATA_ROOT]"
    )
    if name == "run":
        parser.add_argument(
            "--deterministic", action="store_true", help="bit-equal reruns on a GPU, too"
        )
        parser.add_argument(
            "--track",
            type=str,
            help="show training in a tracker, as mtl train, under the name of the study",
        )
    if name in ("plan", "run"):
        parser.add_argument(
            "--side-by-side",
            type=str,
            default="1",
            metavar="N",
            help="let N runs that fit go together on one encoder, or trials of a search or choice "
            "of sources; auto: as many as pay",
        )
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    return parser


def _ls() -> int:
    from tabulate import tabulate

    from mtl.study import list_studies, read_study

    rows = [(name, read_study(name).notes.partition(". ")[0]) for name in list_studies()]
    print(tabulate(rows, headers=["study", "what it is"]))
    return 0


def _planned(study: Study, places: Places, *, merge: bool = False) -> StudyPlan:
    from mtl.engine.folder import runs_folder
    from mtl.study import plan_study
    from mtl.study.journal import Journal

    journal = Journal(runs_folder(places.runs), study.name)
    return plan_study(study, places, journal.resolved(), merge=merge)


def _bill(plan: StudyPlan, *, probing: bool) -> Bill:
    from mtl.study.bill import make_bill

    if not probing:
        return make_bill(plan)
    from mtl.study.probing import probe

    return make_bill(plan, probe)


def _plan(study: Study, places: Places, options: Namespace) -> int:
    from mtl.cli import study_text

    plan = _planned(study, places)
    bill = _bill(plan, probing=options.probe)
    if options.json:
        print(json.dumps(study_text.plan_json(plan, bill)))
    else:
        print(study_text.plan_text(plan, bill, each=options.each))
    return 0


def _suggest(study: Study, places: Places, options: Namespace) -> int:
    from mtl.cli import study_text
    from mtl.cli.common import say
    from mtl.errors import RequestError
    from mtl.study.suggest import suggest

    if not options.hours > 0:
        raise RequestError(f"--hours must be above 0, not {options.hours:g}.")
    plan = _planned(study, places)
    state, picks = suggest(plan, _bill(plan, probing=options.probe), options.hours, say)
    if options.json:
        print(json.dumps(study_text.suggest_json(plan, state, picks)))
    else:
        print(study_text.suggest_text(plan, state, picks))
    return 0


def _run(study: Study, places: Places, options: Namespace) -> int:
    from mtl.errors import RequestError

    for name in ("workers", "threads", "per_gpu"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise RequestError(f"--{name.replace('_', '-')} must be at least 1, not {value}.")
    for name in ("address", "per_gpu"):
        if getattr(options, name) is not None and options.engine != "ray":
            raise RequestError(f"--{name.replace('_', '-')} belongs to --engine ray.")
    if options.smoke:
        return _smoke(study, places, options)
    return _carried_out(_planned(study, places), options)


def _smoke(study: Study, places: Places, options: Namespace) -> int:
    import tempfile
    from dataclasses import replace
    from pathlib import Path

    from mtl.study.smoke import make_smoke

    data_root = places.data_root or os.environ.get("MTL_DATA_ROOT") or None
    with tempfile.TemporaryDirectory(prefix="mtl-smoke-") as folder:
        small = make_smoke(study, Path(folder), data_root)
        own = replace(places, zoo=f"{folder}/zoo", runs=f"{folder}/runs")
        return _carried_out(_planned(small, own, merge=True), options)


def _carried_out(plan: StudyPlan, options: Namespace) -> int:
    from mtl.cli import study_text
    from mtl.cli.study_progress import showing
    from mtl.errors import RequestError
    from mtl.search.searching import check_optuna
    from mtl.study import drive
    from mtl.study.bill import make_bill
    from mtl.study.journal import Journal

    problems = plan.problems()
    if problems:
        raise RequestError(
            f"Nothing was run: {plan.count('blocked')} of {len(plan.nodes)} runs cannot be. "
            + " ".join(problems[:3])
        )
    if any(node.cell.search and node.state != "done" for node in plan.nodes.values()):
        check_optuna()
    engine, workers = _engine(plan, options)
    bill = make_bill(plan)
    costs = {key: cost.seconds for key, cost in bill.costs.items() if cost.seconds is not None}
    journal = Journal(plan.desk.workspace.runs, plan.study.name)
    with closing(engine), showing(plan, engine.describe(), workers, silent=options.json) as tell:
        going = drive(plan, engine, journal, tell, costs)
    if options.json:
        print(json.dumps(study_text.run_json(going)))
    else:
        print(study_text.run_text(going))
    return 0 if all(node.state == "done" for node in plan.nodes.values()) else 1


def _engine(plan: StudyPlan, options: Namespace) -> tuple[Engine, int]:
    """The engine that the options name, and how many workers it has."""
    from mtl.study.local import LocalEngine, usable_gpus
    from mtl.threads import usable_cores

    said = os.environ.get("OMP_NUM_THREADS", "")
    wanted = options.threads or plan.study.threads
    threads = wanted or (int(said) if said.isdigit() else 0) or 1
    if options.engine == "ray":
        from mtl.study.ray_engine import open_ray

        ray = open_ray(plan, threads, options.per_gpu or 1, options.workers, options.address)
        return ray, ray.slots()
    gpus = usable_gpus()
    cores = usable_cores()
    workers = options.workers or len(gpus) or max(1, cores // threads)
    if not gpus and workers * threads > cores:
        print(
            f"note: {workers} workers of {threads} thread(s) share {cores} core(s); runs wait for "
            "each other.",
            file=sys.stderr,
        )
    return LocalEngine(workers, threads, gpus), workers


def _status(study: Study, places: Places, options: Namespace) -> int:
    from mtl.cli import study_text
    from mtl.engine.folder import runs_folder
    from mtl.study.journal import Journal

    plan = _planned(study, places)
    journal = Journal(runs_folder(places.runs), study.name)
    if options.json:
        print(json.dumps(study_text.status_json(plan, journal)))
    else:
        print(study_text.status_text(plan, journal))
    return 0


_DOORS = {"plan": _plan, "run": _run, "status": _status, "suggest": _suggest}
