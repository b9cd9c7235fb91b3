"""``mtl.graph``: which source tasks help which target, measured, learned and predicted."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mtl.cli.graph_options import RUNS, add_graph_places
from mtl.cli.options import Parser
from mtl.typed import graph_places
from mtl.words import counted

KINDS = ("measured", "attribution", "reliance", "predicted")

if TYPE_CHECKING:
    import networkx as nx

    from mtl.zoo import Zoo


def main(argv: Sequence[str]) -> int:
    arguments = list(argv)
    if arguments and arguments[0] in RUNS:
        from mtl.cli import graph_attribute, graph_runs

        module = graph_attribute if arguments[0] == "attribute" else graph_runs
        return int(getattr(module, arguments[0])(arguments[1:]))
    parser = Parser(prog="mtl.graph", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = _add(commands, "build", "collect the evidence of all compositions, write graph.json")
    build.add_argument(
        "--out",
        nargs="+",
        default=[],
        metavar="FILE",
        help="also write the graph there: .json (node-link), .graphml or .dot",
    )
    build.add_argument(
        "--prune", action="store_true", help="remove evidence of compositions the zoo has no more"
    )
    show = _add(commands, "show", "the graph as a table, and as a picture")
    show.add_argument("--target", help="only edges into this task")
    show.add_argument("--html", metavar="FILE", help="draw it as one HTML file, for any browser")
    show.add_argument("--png", metavar="FILE", help="draw it as a picture")
    show.add_argument("--matrix", metavar="FILE", help="draw the transfer matrix as a heat map")
    show.add_argument(
        "--kind",
        choices=KINDS,
        help="only this evidence [table: all; picture: the strongest; matrix: measured]",
    )
    show.add_argument("--score", help="of predictions this score [table: all; picture: commonest]")
    check = _add(commands, "calibrate", "every score against measured transfer: what to trust")
    check.add_argument("--method", help="the composition whose transfer counts [most measured]")
    check.add_argument(
        "--split",
        choices=("dev", "test"),
        default="dev",
        help="where transfer was measured: dev, which auto goes by, or test, for a report [dev]",
    )
    for name, text in RUNS.items():
        commands.add_parser(name, help=text, add_help=False)
    options = parser.parse_args(arguments)

    from mtl.zoo import open_zoo

    zoo = open_zoo(options.zoo)
    run = {"build": _build, "show": _show, "calibrate": _calibrate}[options.command]
    return run(zoo, options)


def _add(commands: Any, name: str, text: str) -> Any:
    parser = commands.add_parser(name, help=text, description=text)
    add_graph_places(parser)
    parser.add_argument("--base", help="fingerprint of a base (8 digits or more), or its id")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    return parser


def _build(zoo: Zoo, options: Namespace) -> int:
    from pathlib import Path

    from tqdm import tqdm

    from mtl.errors import RequestError
    from mtl.graph import graph_folder, record
    from mtl.graph.collect import stale_files
    from mtl.graph.formats import SUFFIXES, write_graph
    from mtl.graph.opening import open_graph

    for name in options.out:  # before minutes of work
        if Path(name).suffix.lower() not in SUFFIXES:
            raise RequestError(f"--out {name}: its suffix must be one of {', '.join(SUFFIXES)}.")
    folder = graph_folder(zoo.root, options.graph)
    with tqdm(desc="collect", unit="run", leave=False, disable=None, file=sys.stderr) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        collected = record(zoo, folder, progress=progress)
    stale = stale_files(zoo, folder)
    for path in stale if options.prune else ():
        path.unlink(missing_ok=True)
    graph, problems = open_graph(zoo, folder, options.base)
    paths = [folder / "graph.json", *(Path(name) for name in options.out)]
    for path in paths:
        write_graph(graph, path)
    answer = {
        "graph": str(folder),
        "files": [str(path) for path in paths],
        "nodes": graph.number_of_nodes(),
        "edges": graph.number_of_edges(),
        "findings": sum(len(data["evidence"]) for _, _, data in graph.edges(data=True)),
        "written": collected.written,
        "kept": collected.kept,
        "stale": [path.name for path in stale],
        "notes": list(collected.notes),
        "problems": problems,
    }
    if options.json:
        print(json.dumps(answer))
        return 1 if problems else 0
    for text in [*collected.notes, *problems]:
        print(f"note: {text}", file=sys.stderr)
    print(
        f"{counted(answer['nodes'], 'task')}, {counted(answer['edges'], 'edge')}, "
        f"{counted(answer['findings'], 'finding')} "
        f"({counted(collected.written, 'run')} collected, {collected.kept} already there)"
    )
    if stale:
        done = "removed" if options.prune else "kept; --prune removes it"
        are = "file of evidence is of a run" if len(stale) == 1 else "files of evidence are of runs"
        print(f"{len(stale)} {are} that this zoo has no more ({done})")
    for path in paths:
        print(path)
    return 1 if problems else 0


def _show(zoo: Zoo, options: Namespace) -> int:
    from mtl.graph import graph_folder
    from mtl.graph.formats import node_link
    from mtl.graph.opening import open_graph
    from mtl.graph.table import render

    folder = graph_folder(zoo.root, options.graph)
    graph, problems = open_graph(zoo, folder, options.base)
    target = _target(graph, options.target)
    drawn = _draw(graph, target, options)
    if options.json:
        print(json.dumps({**node_link(graph), "problems": problems, "drawn": drawn}))
        return 0
    for text in problems:
        print(f"note: {text}", file=sys.stderr)
    print(render(graph, target, options.kind, options.score))
    for path in drawn:
        print(path)
    return 0


def _draw(graph: nx.DiGraph, target: str | None, options: Namespace) -> list[str]:
    """Write the pictures that the options ask for; returns their paths."""
    from pathlib import Path

    from mtl.errors import RequestError
    from mtl.graph.matrix import elsewhere_lines, transfer_matrix
    from mtl.graph.model import ORDER
    from mtl.graph.page import write_page
    from mtl.graph.picture import check_drawing, check_matrix, draw_graph, draw_matrix
    from mtl.graph.scores import SCORES

    if options.score is not None:
        SCORES.get(options.score)
        if options.kind not in {None, "predicted"}:
            raise RequestError(f"--score goes with --kind predicted, not {options.kind}.")
    chosen: dict[str, Any] = {
        "kinds": (options.kind,) if options.kind else ORDER,
        "score": options.score,
        "target": target,
    }
    matrix = None
    if options.matrix:
        kind = options.kind or ("predicted" if options.score else "measured")
        targets = None if target is None else [target]
        method = options.score if kind == "predicted" else None
        matrix = transfer_matrix(graph, kind, method, targets=targets)
        check_matrix(matrix)
    if options.png or options.matrix:
        check_drawing()
    # nothing was written until here: what cannot be drawn leaves nothing half done
    if options.html:
        write_page(graph, Path(options.html), **chosen)
    if options.png:
        draw_graph(graph, Path(options.png), **chosen)
    if matrix is not None:
        draw_matrix(matrix, Path(options.matrix))
        for line in elsewhere_lines(matrix):
            print(line, file=sys.stderr)
    return [path for path in (options.html, options.png, options.matrix) if path]


def _calibrate(zoo: Zoo, options: Namespace) -> int:
    from mtl.cli.graph_text import calibration_text
    from mtl.errors import RequestError
    from mtl.graph import graph_folder
    from mtl.graph.calibrate import calibrate, write_calibration
    from mtl.graph.opening import open_graph

    folder = graph_folder(zoo.root, options.graph)
    graph, problems = open_graph(zoo, folder, options.base)
    for text in problems:
        print(f"note: {text}", file=sys.stderr)
    measured = {
        item["base"]
        for _, _, data in graph.edges(data=True)
        for item in data["evidence"]
        if item["kind"] == "measured"
    }
    if len(measured) > 1:
        shown = ", ".join(sorted(mark[:8] for mark in measured))
        raise RequestError(f"Transfer was measured on several bases ({shown}): say --base.")
    if not measured:
        raise RequestError(
            "Nothing to calibrate with: no transfer was measured. Run first "
            f"'python -m mtl.graph measure --targets TASK --scores all{graph_places()}', for "
            "several targets."
        )
    found = calibrate(graph, measured.pop(), method=options.method, split=options.split)
    path = write_calibration(folder, found)
    if options.json:
        print(json.dumps({**found.to_dict(), "file": str(path)}))
    else:
        print(calibration_text(found))
    return 0


def _target(graph: nx.DiGraph, name: str | None) -> str | None:
    """The task of the graph that ``name`` means: an id, or a name that is unique."""
    from mtl.errors import unknown

    if name is None or name in graph:
        return name
    found = [task for task in graph if task.rpartition("/")[2] == name]
    if len(found) != 1:
        raise unknown("task of the graph", name, list(graph))
    return found[0]
