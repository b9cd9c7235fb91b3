"""``mtl.graph suggest`` and ``mtl.graph measure``."""

from __future__ import annotations

import json
import os
import shlex
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mtl.cli.graph_options import RUNS, add_scene, check_limit
from mtl.cli.options import Parser, names

if TYPE_CHECKING:
    from mtl.compose.scene import Scene


def suggest(argv: Sequence[str]) -> int:
    """``mtl.graph suggest``."""
    parser = Parser(prog="mtl.graph suggest", description=f"{RUNS['suggest']}.".capitalize())
    parser.add_argument("--target", required=True, help="the target task, e.g. entail")
    parser.add_argument(
        "--sources", nargs="+", default=["all"], metavar="TASK", help="'all', or names of tasks"
    )
    parser.add_argument(
        "--scores", nargs="+", default=[], metavar="SCORE", help="which scores [all of them]"
    )
    parser.add_argument("--source-method", default="pfeiffer", help="how sources were made")
    parser.add_argument("--source-seed", type=int, default=0, help="seed of the sources")
    parser.add_argument("--max-train-samples", type=int, default=0, help="as in mtl.compose")
    parser.add_argument("--rows", type=int, default=2000, help="rows per task to look at, at most")
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default="auto",
        help="of the passes [auto: bf16 on a CPU that computes in it, if a test on dev rows shows "
        "equal scores]",
    )
    add_scene(parser)
    options = parser.parse_args(list(argv))

    from mtl.cli.graph_text import suggestion_text
    from mtl.compose.refusals import argument
    from mtl.compose.suggest import chosen_scores, keep_suggestion
    from mtl.graph import graph_folder
    from mtl.graph.calibrate import read_calibration

    scores = chosen_scores(names(options.scores))
    scene = replace(open_scene(options, "suggest", argv), precision=options.precision)
    extractor = scene.extractor(check_limit("--rows", options.rows, 2))
    found = scene.look(
        extractor,
        names(options.sources),
        [score.name for score in scores],
        method=options.source_method,
        seed=options.source_seed,
    )
    folder = graph_folder(scene.workspace.zoo.root, options.graph)
    keep_suggestion(found, scene.data, extractor, folder)
    calibration = read_calibration(folder, scene.backbone.base.fingerprint)
    if options.json:
        known = calibration.to_dict()["scores"] if calibration else {}
        trust = {score.name: known.get(score.name) for score in scores}
        print(json.dumps({**found.to_dict(), "trust": trust}))
    else:
        print(suggestion_text(found, calibration, shlex.quote(argument(scene.spec))))
    return 0


def open_scene(options: Namespace, command: str, argv: Sequence[str]) -> Scene:
    """Target, base and places that the options name.

    Raises:
        RequestError: unknown names, unusable data or model.
    """
    from mtl.backbone import load_backbone
    from mtl.cli import common
    from mtl.compose.scene import Scene
    from mtl.engine import RunSettings
    from mtl.runs import open_workspace
    from mtl.runs.context import chosen_model, suite_of
    from mtl.runs.workspace import load_task_data
    from mtl.tasks import load_member

    if options.json:
        os.environ["MTL_QUIET"] = "1"
    common.quieten()
    suite = suite_of(options.suite, [options.target])
    spec = load_member(options.target, suite)
    model = chosen_model(options.model, suite)
    workspace = open_workspace(
        zoo=options.zoo,
        runs=options.runs,
        data_root=options.data_root,
        command=["python", "-m", "mtl.graph", command, *argv],
        model=options.model,
        tasks=[*common.named_tasks(options), *map(str, suite.files.values())],
    )
    protocol = options.protocol or suite.protocol_of(spec)
    limit = check_limit("--max-train-samples", options.max_train_samples, 0)
    rows = RunSettings(max_train_samples=limit, sample=suite.sample_of(spec.id))
    data = load_task_data(spec, workspace, protocol, rows)
    base = load_backbone(model)
    return Scene(suite, spec, data, base, model, options.protocol, workspace)


def measure(argv: Sequence[str]) -> int:
    """``mtl.graph measure``."""
    from mtl.cli.common import make_parser

    text = f"{RUNS['measure']}.".capitalize()
    parser = make_parser("mtl.graph measure", text, several=False)
    parser.add_argument("--targets", nargs="+", type=str, required=True, metavar="TASK")
    parser.add_argument(
        "--sources", nargs="+", type=str, default=["all"], metavar="TASK", help="'all', or tasks"
    )
    parser.add_argument("--suite", type=str, help="the suite 'all' means [the first target's]")
    parser.add_argument(
        "--method", type=str, default="average", help="the composition of one source"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="one run per seed")
    parser.add_argument(
        "--source-method", type=str, default="pfeiffer", help="how sources were made"
    )
    parser.add_argument("--source-seed", type=int, default=0, help="seed of the sources")
    parser.add_argument(
        "--scores",
        nargs="+",
        type=str,
        default=[],
        metavar="SCORE",
        help="also compute these scores ('all' for all of them), for mtl.graph calibrate",
    )
    parser.add_argument("--graph", type=str, help="folder of the graph [MTL_GRAPH, ZOO.graph]")
    options = parser.parse_args(list(argv))

    from mtl.cli import common, tell
    from mtl.cli.grid import Point, one_point
    from mtl.compose import COMPOSITIONS, resolve_compose
    from mtl.compose.measure import plan_measure
    from mtl.compose.scene import Scene
    from mtl.compose.sources import wanted_sources
    from mtl.compose.suggest import chosen_scores, keep_suggestion
    from mtl.errors import RequestError
    from mtl.graph import graph_folder
    from mtl.graph.matrix import matrix_text, transfer_matrix
    from mtl.graph.opening import adding_evidence, open_graph
    from mtl.methods import find_method
    from mtl.runs import execute_all
    from mtl.runs.context import check_seeds, specs_of, suite_of
    from mtl.zoo import open_zoo

    grid = one_point(options, parser, options.method, "a measurement is of one setting.")
    scores = names(options.scores)
    chosen = [] if not scores else chosen_scores([] if scores == ["all"] else scores)
    COMPOSITIONS.get(options.method)
    find_method(options.source_method)
    targets = names(options.targets)
    suite = suite_of(options.suite, targets)
    specs = specs_of(suite, targets)
    # every target is a source of the others; `own` keeps those outside of the suite
    wanted = wanted_sources(
        names(options.sources),
        suite,
        "",
        own=False,
        method=options.source_method,
        protocol=options.protocol,
        zoo=open_zoo(options.zoo),
    )
    context = common.open_context(
        options,
        grid,
        suite,
        "graph measure",
        argv,
        lambda recipe, point: resolve_compose(specs[0], options.method, recipe, point.overrides),
    )
    zoo = context.workspace.zoo
    plan = plan_measure(
        specs,
        wanted,
        suite=suite,
        seeds=check_seeds(options.seeds),
        method=options.method,
        source_method=options.source_method,
        source_seed=options.source_seed,
        backbone=context.backbone,
        recipe=context.recipe,
        protocol_of=context.protocol_of,
        overrides=context.overrides,
        workspace=context.workspace,
    )
    left_out = [f"{s} → {t}: {why}" for (t, s), why in plan.left_out.items()]
    planned = [*plan.own, *plan.single]
    if options.dry_run:
        own = Point(options.source_method, plan.limits)
        every = [(own, plan.own), (grid.points[0], plan.single)]
        tell.print_dry_run(every, context, as_json=options.json)
        return 0
    evidence = adding_evidence(zoo, options.graph, common.say)
    reports = execute_all(planned, context.workspace, evidence, wait=options.wait)
    folder = graph_folder(zoo.root, options.graph)
    for run in plan.own[:: len(options.seeds)] if chosen else []:
        scene = Scene(
            suite=suite,
            spec=run.spec,
            data=run.data,
            backbone=context.backbone,
            model=context.model,
            asked_protocol=context.asked_protocol,
            workspace=context.workspace,
            precision=run.settings.precision,
        )
        extractor = scene.extractor()
        try:
            found = scene.look(
                extractor,
                names(options.sources),
                [score.name for score in chosen],
                method=options.source_method,
                seed=options.source_seed,
            )
        except RequestError as error:  # what was measured stands, and so do the other targets
            left_out.append(f"scores of {run.spec.id}: {error}")
            continue
        keep_suggestion(found, run.data, extractor, folder)
    graph, _ = open_graph(zoo, folder, context.backbone.base.fingerprint)
    made = {report.entry.digest for report in reports if report.entry is not None}
    matrix = transfer_matrix(
        graph, "measured", options.method, targets=[s.id for s in specs], runs=made
    )
    if options.json:
        print(
            json.dumps(
                {
                    "command": "graph measure",
                    "runs": common.report_rows(reports),
                    "left_out": left_out,
                    "matrix": matrix.to_dict(),
                }
            )
        )
    else:
        for text in left_out:
            print(f"left out: {text}")
        print(matrix_text(matrix))
    return common.exit_code(reports)
