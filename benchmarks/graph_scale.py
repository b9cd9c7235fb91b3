"""How long the source-task graph takes at 1,000 tasks and 20,000 edges, features cached.

Made-up entries and evidence, real code: read all evidence files, build the graph, write it in three
formats, score 100 candidates of one target from features that are there already, calibrate, lay out
and draw (HTML and PNG). Wall time, and beside it CPU time: on a busy machine they differ.

Usage: python benchmarks/graph_scale.py [--tasks N] [--edges N] [--candidates N] [--keep DIR]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mtl.graph import Evidence, build_graph, read_evidence, write_evidence
from mtl.graph.calibrate import calibrate
from mtl.graph.formats import write_graph
from mtl.graph.matrix import transfer_matrix
from mtl.graph.page import write_page
from mtl.graph.picture import draw_graph, draw_matrix
from mtl.graph.request import SourceRequest
from mtl.graph.scores import SCORES, Candidate, TaskView, compute
from mtl.graph.select import choose_from_graph

BASE = "ab" * 32
ROWS, WIDTH = 2000, 384
RUNS_PER_FILE = 20
FEATURE_SCORES = ("logme", "probe", "esm", "hscore", "knn")


def made_up(tasks: int, edges: int, seed: int = 0) -> list[list[Evidence]]:
    """Evidence of ``edges`` different edges: measured and predicted, a run per 20 edges."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(tasks * tasks, size=edges + tasks, replace=False)
    pairs = [(int(x) // tasks, int(x) % tasks) for x in chosen]
    pairs = [(a, b) for a, b in pairs if a != b][:edges]
    runs: list[list[Evidence]] = []
    for start in range(0, len(pairs), RUNS_PER_FILE):
        run = []
        for source, target in pairs[start : start + RUNS_PER_FILE]:
            gain = float(rng.normal(0, 0.03))
            common: dict[str, Any] = {
                "source": f"made/{source:04d}", "target": f"made/{target:04d}",
                "base": BASE, "rows": f"{target}",
            }  # fmt: skip
            provenance = {"entry": {"ref": f"base/made/{target:04d}/average/seed0", "digest": "0"}}
            run.append(
                Evidence(
                    kind="measured", method="average", value=gain, low=gain - 0.02,
                    high=gain + 0.02, dev=gain + float(rng.normal(0, 0.01)), n=1000, seeds=(0,),
                    provenance=provenance, **common,
                )
                )  # fmt: skip
            noisy = gain + float(rng.normal(0, 0.03))
            run.append(Evidence(kind="predicted", method="logme", value=noisy, **common))
        runs.append(run)
    return runs


def timed(what: str, act: Callable[[], Any], found: dict[str, float]) -> Any:
    start, cpu = time.perf_counter(), time.process_time()
    value = act()
    found[what] = time.process_time() - cpu
    wall = time.perf_counter() - start
    print(f"{what:<42} {wall:8.2f} s, {found[what]:8.2f} s CPU", flush=True)
    return value


def score(candidates: int, name: str) -> list[float]:
    """One score over many candidates, from features in memory."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, ROWS)
    first = rng.normal(size=(ROWS, WIDTH)).astype(np.float32)
    target = TaskView("made/target", "classification", labels=labels, first=first)
    esm = np.concatenate([np.eye(WIDTH), np.zeros((1, WIDTH))])
    return [
        compute(SCORES.get(name), Candidate(target, target, first + 0.01 * number, esm))
        for number in range(candidates)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--edges", type=int, default=20000)
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--keep", type=Path, help="write there instead of a temporary folder")
    options = parser.parse_args()
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        runs = made_up(options.tasks, options.edges)
        timed(
            f"write {len(runs)} evidence files",
            lambda: [write_evidence(folder, f"run-{i}", run) for i, run in enumerate(runs)],
            found,
        )
        evidence, problems = timed("read them", lambda: read_evidence(folder), found)
        assert not problems
        graph = timed("build the graph", lambda: build_graph([], evidence), found)
        print(f"  {graph.number_of_nodes()} tasks, {graph.number_of_edges()} edges")
        for suffix in ("json", "graphml", "dot"):
            timed(
                f"write {suffix}",
                lambda suffix=suffix: write_graph(graph, folder / f"graph.{suffix}"),
                found,
            )
        timed("calibrate", lambda: calibrate(graph, BASE), found)
        goal = max(graph, key=graph.in_degree)
        everyone = set(graph)
        timed(
            "choose graph:k=5",
            lambda: choose_from_graph(graph, goal, BASE, "", SourceRequest("graph"), everyone),
            found,
        )
        for name in FEATURE_SCORES:
            few = options.candidates if name != "probe" else max(options.candidates // 10, 1)
            timed(
                f"{name}, {few} candidates ({ROWS} × {WIDTH})",
                lambda name=name, few=few: score(few, name),
                found,
            )
        timed("draw HTML", lambda: write_page(graph, folder / "graph.html"), found)
        timed("draw PNG", lambda: draw_graph(graph, folder / "graph.png"), found)
        timed(
            "draw the matrix",
            lambda: draw_matrix(transfer_matrix(graph, "measured"), folder / "matrix.png"),
            found,
        )
        size = (folder / "graph.html").stat().st_size / 2**20
        print(f"  graph.html {size:.1f} MB")
    print(json.dumps({"cpu_seconds": {key: round(value, 3) for key, value in found.items()}}))


if __name__ == "__main__":
    main()
