"""How time and memory grow: with sources, tasks, entries of a zoo, rows of a report.

    python benchmarks/growth.py                               # all four
    python benchmarks/growth.py --only entries --sizes 10 100 1000
    python benchmarks/growth.py --json --plot docs

Everything is made without training (benchmarks/growth_zoos.py). Commands run in processes of their
own, start of Python and imports included; functions in forked ones. Of each the fewest processor
seconds of ``--repeat`` runs count, and the memory that its process grew to (a command) or by (a
function). Steps are measured in this process: processor seconds, and the peak beyond weights.

The slope is that of a line through log(cost) over log(size) in the upper decade of sizes: 1 is
linear. What everybody pays, the cost at the smallest size, is taken off before, where the largest
costs twice as much or more; else there is no growth to speak of, and the slope is that of the
whole. Slopes above 1.1 are marked, unless from the last size but one to the last the whole cost
grew by less than the size: what had to fill a fixed cost first looks steep until then.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from growth_plot import draw
from growth_zoos import ROOT, TARGET, Maker, adapters, listed, place, results, suite

SIZES = {
    "sources": (1, 2, 4, 8, 16, 32, 64),
    "tasks": (1, 5, 10, 20, 50, 100, 200),
    "entries": (10, 100, 1000, 3000, 10000),
    "rows": (10, 30, 100, 300, 1000),
}
STEEP = 1.1
ENTRY = """
from mtl.cli.main import entry
try:
    entry()
finally:  # not as the parent could ask for it: that counts what was before the child's exec
    status = open("/proc/self/status").read()
    open({!r}, "w").write(str(int(status.split("VmHWM:")[1].split()[0]) / 1024))
"""
LONG = 2.0  # seconds; what takes longer is run once


@dataclass(frozen=True)
class Cost:
    """Processor seconds, and MB of memory."""

    seconds: float
    mb: float


@dataclass
class Series:
    """What one thing costs at every size."""

    name: str
    sizes: list[int] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)

    def steep(self, of: str) -> bool:
        """Whether it grows faster than the size."""
        values = [max(getattr(cost, of), 1e-6) for cost in self.costs[-2:]]
        return self.slope(of) > STEEP and values[-1] / values[0] > self.sizes[-1] / self.sizes[-2]

    def slope(self, of: str) -> float:
        """Of the upper decade; see the module."""
        sizes = np.array(self.sizes, dtype=float)
        values = np.array([max(getattr(cost, of), 1e-6) for cost in self.costs])
        upper = sizes >= sizes[-1] / 10
        if values[-1] >= 2 * values[0]:
            sizes, values = sizes - sizes[0], values - values[0]
            upper &= values > 0.02 * values[-1]  # below there is nothing but chance
        if upper.sum() < 2:
            return float("nan")
        return float(np.polyfit(np.log(sizes[upper]), np.log(values[upper]), 1)[0])


class Place:
    """A temporary folder with a zoo, a cache and suites, and commands that run in it."""

    def __init__(self, folder: Path, repeat: int) -> None:
        self.folder, self.repeat = folder, repeat
        self.zoo_folder, self.suites = folder / "zoo", folder / "suites"
        self.environment = {
            "MTL_CACHE": str(folder / "cache"),
            "MTL_ZOO": str(self.zoo_folder),
            "MTL_RUNS": str(folder / "runs"),
            "MTL_TASKS": str(self.suites),
            "PYTHONPATH": str(ROOT),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        os.environ.update(self.environment)
        self.suites.mkdir()

    def maker(self) -> Maker:
        """Of the entries of an empty zoo."""
        from mtl.zoo import open_zoo

        for part in ("zoo", "scratch"):
            shutil.rmtree(self.folder / part, ignore_errors=True)
        return Maker(open_zoo(self.zoo_folder), self.folder / "scratch")

    def forget(self) -> None:
        """Everything that commands remember of a zoo and of results, but not the base."""
        for part in ("zoo", "computed/bootstrap"):
            shutil.rmtree(self.folder / "cache" / part, ignore_errors=True)

    def command(self, *argv: str, first: bool = False) -> Callable[[], Cost]:
        """``mtl …`` as a function that runs it once."""
        peak = self.folder / "peak"
        line = [sys.executable, "-c", ENTRY.format(str(peak)), *argv]

        def run() -> Cost:
            if first:
                self.forget()
            with tempfile.TemporaryFile("w+") as said:
                child = subprocess.Popen(line, stdout=said, stderr=said, cwd=self.folder)
                _, status, used = os.wait4(child.pid, 0)
                child.returncode = os.waitstatus_to_exitcode(status)
                if child.returncode:
                    said.seek(0)
                    sys.exit(f"mtl {' '.join(argv[:8])}:\n{said.read()[-3000:]}")
            return Cost(used.ru_utime + used.ru_stime, float(peak.read_text()))

        return run

    def call(self, function: Callable[[], object]) -> Callable[[], Cost]:
        """A function, run in a process that is a copy of this one."""

        def run() -> Cost:
            end, other = os.pipe()
            child = os.fork()
            if not child:
                code = 1
                try:
                    gc.freeze()  # or a collection copies all that the two processes share
                    before, start = _megabytes("VmRSS"), time.process_time()
                    function()
                    seconds = time.process_time() - start
                    found = [seconds, max(_megabytes("VmHWM") - before, 0.0)]
                    os.write(other, json.dumps(found).encode())
                    code = 0
                finally:
                    os._exit(code)
            os.close(other)
            with os.fdopen(end, "rb") as pipe:
                said = pipe.read()
            os.waitpid(child, 0)
            if not said:
                sys.exit("a measured function failed")
            return Cost(*json.loads(said))

        return run

    def best(self, run: Callable[[], Cost]) -> Cost:
        """The cheapest of some runs."""
        found = [run()]
        while len(found) < self.repeat and found[0].seconds < LONG:
            found.append(run())
        return Cost(min(c.seconds for c in found), min(c.mb for c in found))


def _megabytes(key: str) -> float:
    """A line of what the system says of this process' memory."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{key}:")[1].split()[0]) / 1024


Measured = Iterator[tuple[int, str, Cost]]


def sources(at: Place, sizes: Sequence[int]) -> Measured:
    """Stage two over K sources of the demo's base."""
    import torch

    from mtl.backbone import load_backbone
    from mtl.bench import Shape, measure_compose
    from mtl.compose.control import load_sources
    from mtl.methods import source_names

    torch.set_num_threads(1)
    backbone, maker = load_backbone("demo"), at.maker()
    ids = suite(at.suites, "wide", max(sizes) + 1)
    stored = adapters(maker, ids, backbone)
    for size in sizes:
        found = measure_compose(
            backbone.encoder().config,
            Shape(size, 48, 8, 32, 3),
            torch.device("cpu"),
            training=("scalearn_folded", "fusion"),
            inference=("composition",),
            clock=time.process_time,
        )
        for what, row in (
            ("ScaLearn, a step", found["training"]["scalearn_folded"]),
            ("AdapterFusion, a step", found["training"]["fusion"]),
            ("ScaLearn, inference", found["inference"]["composition"]),
        ):
            yield size, what, Cost(row["seconds"], row["peak_mb"])

        def load(size: int = size) -> None:
            load_sources(
                backbone.encoder(),
                source_names(size),
                stored[:size],
                maker.zoo,
                control="",
                target=ids[-1],
                seed=0,
            )

        yield size, "loading the sources", at.best(at.call(load))
        line = ("compose", "--target", ids[-1], "--without-own", "--recipe", "none", "--dry-run")
        plan = at.command(*line, "--model", "demo", "--sources", *ids[:size])
        yield size, "the plan (compose --dry-run)", at.best(plan)


def tasks(at: Place, sizes: Sequence[int]) -> Measured:
    """A suite of so many tasks: plans, joint batches; a graph of them with 8 edges each."""
    from graph_scale import BASE, made_up, score

    from mtl.backbone import load_backbone
    from mtl.graph import build_graph, read_evidence, write_evidence
    from mtl.graph.calibrate import calibrate
    from mtl.graph.request import SourceRequest
    from mtl.graph.select import choose_auto, choose_from_graph
    from mtl.joint.sampler import draw

    at.maker()
    load_backbone("demo")  # from then on it is known, and plans load nothing
    build_graph([], [])  # imports what it needs
    everything = SourceRequest("auto", budget=5)
    for size in sizes:
        name = f"of{size}"
        suite(at.suites, name, size)
        line = ("--suite", name, "--model", "demo", "--recipe", "none", "--dry-run")
        plan = at.command("train", *line, "--method", "pfeiffer", "--seeds", "0")
        yield size, "plan of a suite (train --dry-run)", at.best(plan)
        if size > 1:
            joint = at.command("joint", *line, "--method", "hyperformer", "--seeds", "0")
            yield size, "plan of a joint run", at.best(joint)
        batches = partial(draw, [1000] * size, 32, 10.0, 0, 0)
        yield size, "joint: the batches of an epoch", at.best(at.call(batches))
        yield size, "LogME of that many candidates", at.best(at.call(partial(score, size, "logme")))
        if size < 10:
            continue  # no graph to speak of
        folder = at.folder / "graph" / name
        runs = made_up(size, 8 * size)
        for number, run in enumerate(runs):
            write_evidence(folder, f"run-{number}", run)

        def build(folder: Path = folder) -> None:
            build_graph([], read_evidence(folder)[0])

        yield size, "the graph: reading and building", at.best(at.call(build))
        graph = build_graph([], read_evidence(folder)[0])
        goal = max(graph, key=graph.in_degree)
        yield size, "the graph: calibrating", at.best(at.call(partial(calibrate, graph, BASE)))
        others = [task for task in graph if task != goal]
        values = dict(zip(others, np.random.default_rng(0).random(size), strict=False))

        def choose(graph: Any = graph, goal: str = goal, values: Any = values) -> None:
            for _ in range(20):
                choose_auto(values, 0.5, {}, None, "logme", everything)
                choose_from_graph(graph, goal, BASE, "", SourceRequest("graph"), {*values})

        yield size, "20 choices by auto and graph:k=5", at.best(at.call(choose))


def entries(at: Place, sizes: Sequence[int]) -> Measured:
    """A zoo of so many adapters of the demo's base."""
    from mtl.backbone import load_backbone
    from mtl.data import load_data
    from mtl.tasks import load_task

    base = load_backbone("demo").base.to_dict()
    rows = load_data(load_task(f"demo/{TARGET}"), protocol="official").fingerprints
    maker, done = at.maker(), 0
    for size in sizes:
        print(f"writing {size - done} entries", file=sys.stderr)
        listed(maker, range(done, size), base, rows)
        done = size
        shown = "{}/{}/seed{}".format(*place(size // 2))
        one = ("--task", "nli", "--method", "pfeiffer", "--sort", "metric", "--json")
        compose = ("compose", "--target", f"demo/{TARGET}", "--suite", "demo", "--dry-run")
        for what, run in (
            ("zoo ls, the first", at.command("zoo", "ls", first=True)),
            ("zoo ls, after the first", at.command("zoo", "ls")),
            ("zoo ls of one task and method", at.command("zoo", "ls", *one)),
            ("zoo show of one entry", at.command("zoo", "show", shown)),
            ("zoo fsck", at.command("zoo", "fsck")),
            ("graph build", at.command("graph", "build")),
            ("compose --sources nli --dry-run", at.command(*compose, "--sources", "nli")),
            ("compose --sources all --dry-run", at.command(*compose, "--sources", "all")),
            ("report of one task", at.command("report", "--target", "demo/nli")),
            ("report of everything", at.command("report")),
        ):
            yield size, what, at.best(run)


def rows(at: Place, sizes: Sequence[int]) -> Measured:
    """A report of so many rows, of three runs each."""
    maker, done = at.maker(), 0
    for size in sizes:
        results(maker, range(done, size))
        done = size
        page = str(at.folder / "page.html")
        for what, run in (
            ("report, the first", at.command("report", first=True)),
            ("report, after the first", at.command("report")),
            ("report --html", at.command("report", "--html", page)),
            ("report --variance", at.command("report", "--variance")),
            ("report --tests", at.command("report", "--tests")),
        ):
            yield size, what, at.best(run)


AXES = {"sources": sources, "tasks": tasks, "entries": entries, "rows": rows}


def measure(axis: str, sizes: Sequence[int], repeat: int) -> list[Series]:
    """Everything of one axis."""
    found: dict[str, Series] = {}
    with tempfile.TemporaryDirectory() as folder:
        for size, name, cost in AXES[axis](Place(Path(folder), repeat), sizes):
            series = found.setdefault(name, Series(name))
            series.sizes.append(size)
            series.costs.append(cost)
            print(f"{axis} {size}, {name}: {cost.seconds:.3f} s, {cost.mb:.0f} MB", file=sys.stderr)
    return [*found.values()]


def table(axis: str, found: Sequence[Series]) -> str:
    """The ends of every series and its slopes."""
    from tabulate import tabulate

    def slope(series: Series, of: str) -> str:
        return f"{series.slope(of):.2f}" + (" (above linear)" if series.steep(of) else "")

    lines = [
        [
            series.name,
            *(f"{cost.seconds:.3f}" for cost in (series.costs[0], series.costs[-1])),
            slope(series, "seconds"),
            *(f"{cost.mb:.0f}" for cost in (series.costs[0], series.costs[-1])),
            slope(series, "mb"),
        ]
        for series in found
    ]
    ends = f"{found[0].sizes[0]:,}", f"{found[0].sizes[-1]:,}"
    head = [axis, *(f"s, {end}" for end in ends), "slope", *(f"MB, {end}" for end in ends), "slope"]
    return tabulate(lines, headers=head, tablefmt="github", disable_numparse=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=[*SIZES], default=[*SIZES])
    parser.add_argument("--sizes", nargs="+", type=int, help="in place of the usual ones")
    parser.add_argument("--repeat", type=int, default=3, help="of what takes below 2 s [3]")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="draw growth_*.svg there")
    options = parser.parse_args()
    if options.sizes and len(options.only) != 1:
        parser.error("--sizes are those of one --only")
    told = {}
    for axis in options.only:
        found = measure(axis, sorted(options.sizes or SIZES[axis]), options.repeat)
        told[axis] = {
            series.name: {
                "sizes": series.sizes,
                **{of: [getattr(c, of) for c in series.costs] for of in ("seconds", "mb")},
                "slopes": {of: round(series.slope(of), 3) for of in ("seconds", "mb")},
                "above_linear": [of for of in ("seconds", "mb") if series.steep(of)],
            }
            for series in found
        }
        if not options.json:
            print(table(axis, found) + "\n", flush=True)
        if options.plot:
            path = options.plot / f"growth_{axis}.svg"
            path.write_text(draw(axis, told[axis]), encoding="utf-8")
    if options.json:
        print(json.dumps(told))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
