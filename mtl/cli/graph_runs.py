"""Commands of ``mtl.graph`` that run a model: suggest, measure, attribute."""

from __future__ import annotations

import json
import os
import shlex
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mtl.cli.graph import RUNS, add_graph_places
from mtl.cli.options import PlainParser, names

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtl.backbone import Backbone
    from mtl.compose.features import Extractor
    from mtl.compose.suggest import Suggestion
    from mtl.tasks import Suite, TaskData, TaskSpec
    from mtl.train import Workspace
    from mtl.zoo import Entry


@dataclass(frozen=True)
class Scene:
    """A target on a base, with the candidates of a zoo."""

    suite: Suite
    spec: TaskSpec
    data: TaskData
    backbone: Backbone
    model: str
    protocol: str
    workspace: Workspace


def add_scene(parser: Any) -> None:
    """Options that name a base, data and candidates."""
    parser.add_argument("--suite", help="the suite 'all' means [the target's]")
    parser.add_argument("--model", help="Hub name, folder, or 'demo' [MTL_MODEL, suite]")
    parser.add_argument("--protocol", help="how data are split [the suite's]")
    parser.add_argument("--data-root", help="local mirror of Hub datasets [MTL_DATA_ROOT]")
    parser.add_argument("--runs", help="folder of run folders [MTL_RUNS, ./runs]")
    parser.add_argument("--json", action="store_true", help="one line of JSON on standard output")
    add_graph_places(parser)


def suggest(argv: Sequence[str]) -> int:
    """``mtl.graph suggest``."""
    parser = PlainParser(prog="mtl.graph suggest", description=f"{RUNS['suggest']}.".capitalize())
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
    add_scene(parser)
    options = parser.parse_args(list(argv))

    from mtl.cli.graph_text import suggestion_text
    from mtl.compose.suggest import chosen_scores, keep_suggestion
    from mtl.graph import graph_folder

    scores = chosen_scores(names(options.scores))
    scene = open_scene(options, "suggest", argv)
    extractor = make_extractor(scene, options.rows)
    found = look(
        scene,
        extractor,
        names(options.sources),
        [score.name for score in scores],
        method=options.source_method,
        seed=options.source_seed,
    )
    folder = graph_folder(scene.workspace.zoo.root, options.graph)
    keep_suggestion(found, scene.data, extractor, folder)
    if options.json:
        print(json.dumps(found.to_dict()))
    else:
        print(suggestion_text(found))
    return 0


def open_scene(options: Namespace, command: str, argv: Sequence[str]) -> Scene:
    """Target, base and places that the options name.

    Raises:
        RequestError: unknown names, unusable data or model.
    """
    from mtl.backbone import load_backbone
    from mtl.cli import common
    from mtl.tasks import load_task
    from mtl.train import open_workspace
    from mtl.train.workspace import load_task_data

    if options.json:
        os.environ["MTL_QUIET"] = "1"
    common.quieten()
    suite = common.suite_of(options, [options.target])
    spec = load_task(options.target, suite.name)
    model = options.model or os.environ.get("MTL_MODEL") or suite.model
    workspace = open_workspace(
        zoo=options.zoo,
        runs=options.runs,
        data_root=options.data_root,
        command=shlex.join(["python", "-m", "mtl.graph", command, *argv]),
    )
    protocol = options.protocol or suite.protocol
    limit = check_limit("--max-train-samples", options.max_train_samples, 0)
    data = load_task_data(spec, workspace, protocol, limit, 0)
    return Scene(suite, spec, data, load_backbone(model), model, protocol, workspace)


def check_limit(flag: str, value: int, least: int) -> int:
    """``value``, if it is at least ``least``. Raises RequestError."""
    from mtl.errors import RequestError

    if value < least:
        raise RequestError(f"{flag} {value} must be at least {least}.")
    return value


def make_extractor(scene: Scene, rows: int) -> Extractor:
    """The passes over this scene's base."""
    from mtl.compose.features import Extractor
    from mtl.engine import open_device

    limit = check_limit("--rows", rows, 2)
    return Extractor(scene.backbone, scene.workspace, open_device("fp32"), limit=limit)


def look(
    scene: Scene,
    extractor: Extractor,
    sources: Sequence[str],
    scores: Sequence[str],
    *,
    method: str,
    seed: int,
) -> Suggestion:
    """Score the zoo's candidates for the scene's target."""
    from tqdm import tqdm

    from mtl.compose.sources import Wanted, find_candidates, wanted_sources
    from mtl.compose.suggest import chosen_scores, score_sources

    wanted = wanted_sources(sources, scene.suite, scene.spec.id, own=False, method=method)
    base = scene.backbone.base
    place = (scene.data, scene.workspace.zoo, base, seed, scene.protocol)
    entries, left_out = find_candidates(wanted, *place)
    own, _ = find_candidates([Wanted(scene.spec.id, method)], *place)
    with tqdm(
        total=len(entries),
        desc=f"score for {scene.spec.id}",
        unit="source",
        leave=False,
        disable=True if os.environ.get("MTL_QUIET") == "1" else None,
        file=sys.stderr,
    ) as bar:
        return score_sources(
            scene.data,
            entries,
            data_of(scene),
            chosen_scores(scores),
            extractor,
            own=own[0] if own else None,
            left_out=left_out,
            progress=lambda task: bar.update(),
        )


def data_of(scene: Scene) -> Callable[[Entry], TaskData]:
    """Entry → the data its task trained on: the task's spec of today, the entry's limit."""
    from mtl.tasks import load_task
    from mtl.train.workspace import load_task_data

    def find(entry: Entry) -> TaskData:
        spec = load_task(entry.manifest.task["id"], scene.suite.name)
        limit = int(entry.manifest.run_settings.get("max_train_samples") or 0)
        return load_task_data(spec, scene.workspace, scene.protocol, limit, 0)

    return find
