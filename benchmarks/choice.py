"""Regret, safety and cost of ``--sources best`` beside ``all`` and ``auto``.

    python benchmarks/choice.py demo --zoo ZOO --runs RUNS
    python benchmarks/choice.py minilm --zoo ZOO --runs RUNS --model MINILM --data-root DIR

For every target, cut to so many training rows: the own adapter (of the seeds, and of the sources'
seed, which is the source), ``best``, ``all`` and ``auto`` of the seeds, and every source alone by
``average`` (of the first seed). All of them are ordinary runs in RUNS/zoos/TARGET, which begins as
a copy of ZOO, where the sources are: what is there is skipped, what was killed goes on, and a
target that is done is read from RUNS/choice.

*Regret*: the best of own adapter, single sources and all in hindsight, chosen on one half of the
test rows and scored on the other, less the method's score there; halves swapped and averaged, mean
over seeds. The worst counts only targets with 500 test rows. *Below own*: the bootstrap interval
(over test rows) of the gain over the own adapter lies below zero. *Cost*: full runs of the search.
*Flattery*: how much more dev says than test, of the own adapter and of the other sources alone.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

import mtl
from mtl.errors import MtlError
from mtl.files import sha256_json, write_json
from mtl.report import mean_interval, paired_bootstrap
from mtl.tasks.metrics import METRICS
from mtl.zoo.predictions import Predictions, read_predictions

METHODS = ("best", "all", "auto")
COUNTED = 500
"""Test rows from which a target counts in the worst regret."""


@dataclass(frozen=True)
class World:
    """Targets, and how their runs are trained.

    Attributes:
        targets: task → the suite whose tasks are its sources.
        rows: training rows to cut to.
        seed: of the sources.
        own, composed: settings of stage one and two.
    """

    targets: Mapping[str, str]
    rows: Sequence[int]
    seed: int
    own: Mapping[str, Any] = field(default_factory=dict)
    composed: Mapping[str, Any] = field(default_factory=dict)


_SHORT = {"epochs": 10, "eval_every": 20, "patience": 0}
GLUE = ("mrpc", "rte", "stsb", "qnli", "cola", "sst2")
WORLDS = {
    "minilm": World(
        {
            **{f"glue/{task}": "glue" for task in GLUE},
            **{f"superglue/{task}": "glue+superglue" for task in ("cb", "copa", "wic")},
        },
        (100, 300),
        100,
        {"lr": 3e-3, **_SHORT},
        {"lr": 6e-3, **_SHORT},
    ),
    "demo": World(
        {
            f"demo/{task}": "demo"
            for task in (
                *("acceptability", "entail", "nli", "paraphrase", "sentiment", "similarity"),
            )
        },
        (300,),
        0,
    ),
}


@dataclass(frozen=True)
class Study:
    """One call: a world, and where and how far it is run."""

    world: World
    options: argparse.Namespace

    def run_target(self, task: str, rows: int) -> dict[str, Any]:
        """All runs of a target, and its figures as JSON."""
        options, world = self.options, self.world
        began = time.monotonic()
        place = self.zoo_of(task, rows)
        common: dict[str, Any] = {
            "suite": world.targets[task],
            "model": options.model,
            "zoo": place,
            "runs": options.runs,
            "data_root": options.data_root,
            "progress": False,
            "max_train_samples": rows,
            "max_eval_samples": options.max_eval,
            "max_dev_samples": options.max_dev,
        }
        own = {
            seed: mtl.train_adapter(task, seed=seed, **common, **world.own)
            for seed in [*options.seeds, world.seed]
        }

        def composed(sources: Any, seed: int, **how: Any) -> mtl.Entry:
            return mtl.compose_adapters(
                task,
                sources=sources,
                seed=seed,
                source_seed=world.seed,
                allow_missing=True,
                **how,
                **common,
                **world.composed,
            )

        runs: dict[str, dict[int, mtl.Entry]] = {"own": {s: own[s] for s in options.seeds}}
        for method in METHODS:
            runs[method] = {seed: composed(method, seed) for seed in options.seeds}
        first = options.seeds[0]
        zoo = mtl.open_zoo(place)
        parents = [zoo.get(parent["ref"]) for parent in runs["all"][first].manifest.parents]
        single = {
            entry.manifest.task["id"]: composed([entry], first, method="average")
            for entry in parents
        }
        candidates = {
            "own adapter": runs["own"][first],
            "all": runs["all"][first],
            **{f"{source} alone": entry for source, entry in single.items()},
        }
        return {
            "task": task,
            "rows": rows,
            "seeds": list(options.seeds),
            **_figures(task, runs, candidates, single),
            "minutes": (time.monotonic() - began) / 60,
            "entries": {
                name: {str(seed): entry.ref for seed, entry in of.items()}
                for name, of in {**runs, "single": dict(enumerate(single.values()))}.items()
            },
        }

    def zoo_of(self, task: str, rows: int) -> Path:
        """A copy of the zoo of the sources for one target.

        The own adapter of few rows has the sources' seed, too, and would be a second adapter of its
        task where that is a source of another target.
        """
        folder = Path(self.options.runs) / "zoos" / f"{task.replace('/', '-')}-{rows}"
        if not folder.is_dir():
            half = folder.with_suffix(".half")
            shutil.rmtree(half, ignore_errors=True)
            shutil.copytree(self.options.zoo, half)
            for entry in mtl.open_zoo(half).entries(kind="composition"):
                shutil.rmtree(entry.folder)  # a choice of before would stand for today's
            half.rename(folder)
        return folder

    def plan(self) -> list[tuple[str, int]]:
        """Targets and rows, the fewest rows first, so that a cut leaves rows out before targets."""
        rows = self.options.rows or self.world.rows
        return [(task, count) for count in rows for task in self._targets()]

    def _targets(self) -> list[str]:
        named = self.options.targets or list(self.world.targets)
        known = {task.partition("/")[2]: task for task in self.world.targets}
        found = [known.get(name, name) for name in named]
        wrong = [name for name in found if name not in self.world.targets]
        if wrong:
            raise SystemExit(f"--targets {' '.join(wrong)}: there are {', '.join(known)}.")
        return found

    def record(self, task: str, rows: int) -> Path:
        """Where the figures of a target are kept."""
        options = self.options
        what = [task, rows, options.seeds, options.max_eval, options.max_dev, options.model]
        what += [self.world.seed, dict(self.world.own), dict(self.world.composed)]
        return Path(options.runs) / "choice" / f"{sha256_json(what)[:16]}.json"


def _figures(
    task: str,
    runs: Mapping[str, Mapping[int, mtl.Entry]],
    candidates: Mapping[str, mtl.Entry],
    single: Mapping[str, mtl.Entry],
) -> dict[str, Any]:
    metric = str(next(iter(runs["own"].values())).manifest.task["headline"])
    answers = {
        name: [read_predictions(entry.folder) for entry in of.values()] for name, of in runs.items()
    }
    of_candidate = {name: read_predictions(entry.folder) for name, entry in candidates.items()}
    whole = np.arange(len(answers["own"][0].row))
    order = np.random.RandomState(0).permutation(len(whole))
    halves = [order[::2], order[1::2]]
    regret: dict[str, list[float]] = {name: [] for name in ("own", *METHODS)}
    hindsight = []
    for chosen_on, scored_on in (halves, halves[::-1]):
        top = max(of_candidate, key=lambda name: _score(metric, of_candidate[name], chosen_on))
        hindsight.append(top)
        reached = _score(metric, of_candidate[top], scored_on)
        for name, values in regret.items():
            values += [reached - _score(metric, each, scored_on) for each in answers[name]]
    scores = {name: [_score(metric, a, whole) for a in of] for name, of in answers.items()}
    gains = {
        name: {
            "mean": float(np.mean(np.subtract(scores[name], scores["own"]))),
            "rows": paired_bootstrap(metric, answers["own"], answers[name]),
            "seeds": _half(np.subtract(scores[name], scores["own"]).tolist()),
        }
        for name in METHODS
    }
    choice = next(iter(runs["best"].values())).manifest.training.get("choice") or {}
    return {
        "metric": metric,
        "test": len(whole),
        "scores": scores,
        "regret": {name: float(np.mean(values)) for name, values in regret.items()},
        "hindsight": hindsight,
        "gain": gains,
        "choice": {key: choice.get(key) for key in ("by", "rows", "cost", "chosen")},
        "alone": {
            source: {
                "dev": entry.manifest.metrics["dev"][metric]["value"],
                "test": _score(metric, read_predictions(entry.folder), whole),
            }
            for source, entry in single.items()
        },
        "own": task,
    }


def _score(metric: str, answers: Predictions, rows: np.ndarray) -> float:
    compute = METRICS.get(metric).compute
    assert compute is not None
    labels, predictions = answers.label[rows], answers.prediction[rows]
    return float(compute(labels, predictions, np.ones(len(rows))))


def _half(values: list[float]) -> float | None:
    return mean_interval(values).half


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """Targets, then means and worst; two tables."""
    each = [
        [
            item["task"],
            item["rows"],
            f"{item['metric']}, n {item['test']:,}",
            *(f"{np.mean(item['scores'][name]):.4f}" for name in ("own", *METHODS)),
            *(f"{item['regret'][name]:+.4f}" for name in METHODS),
            f"{item['choice']['cost']:.1f}",
            _chosen(item["choice"]["chosen"]),
            " / ".join(dict.fromkeys(item["hindsight"])),
        ]
        for item in found
    ]
    head = ["target", "rows", "metric", "own", *METHODS, *(f"regret {m}" for m in METHODS)]
    parts = [
        tabulate(each, headers=[*head, "cost", "chosen", "in hindsight"], disable_numparse=True)
    ]
    rows = []
    for name in ("own", *METHODS):
        regrets = [item["regret"][name] for item in found]
        counted = [item["regret"][name] for item in found if item["test"] >= COUNTED]
        below = [_below(item, name) for item in found] if name != "own" else []
        rows.append(
            [
                name,
                f"{np.mean(regrets):+.4f}",
                f"{max(counted):+.4f}" if counted else "–",
                f"{len(below) - sum(below)} of {len(below)}" if below else "",
                f"{np.mean([item['choice']['cost'] for item in found]):.1f} "
                f"(at most {max(item['choice']['cost'] for item in found):.1f})"
                if name == "best"
                else "",
            ]
        )
    head = ["", "mean regret", f"worst (test ≥ {COUNTED})", "not below own", "cost, full runs"]
    parts.append(tabulate(rows, headers=head, disable_numparse=True))
    for what, is_own in (("the own adapter", True), ("another source", False)):
        more = [
            values["dev"] - values["test"]
            for item in found
            for source, values in item["alone"].items()
            if (source == item["own"]) == is_own and values["dev"] is not None
        ]
        if more:
            told = mean_interval(more)
            half = "–" if told.half is None else f"{told.half:.4f}"
            parts.append(f"dev − test of {what} alone: {told.mean:+.4f} ± {half} (n {told.n})")
    return "\n\n".join(parts[:2]) + "\n\n" + "\n".join(parts[2:])


def _below(item: Mapping[str, Any], name: str) -> bool:
    rows = item["gain"][name]["rows"]
    return rows is not None and rows[1] < 0


def _chosen(chosen: Mapping[str, Any]) -> str:
    start = "" if chosen["start"] is None else f", start {chosen['start']:g}/K"
    sources = ", ".join(task.partition("/")[2] for task in chosen["sources"])
    return f"{chosen['method']}{start}: {sources}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("world", choices=sorted(WORLDS))
    parser.add_argument("--zoo", required=True, help="holds the sources; is only read")
    parser.add_argument("--runs", required=True)
    parser.add_argument("--model", help="folder of the encoder [demo]")
    parser.add_argument("--data-root", help="mirror of the Hub's data sets")
    parser.add_argument("--targets", nargs="+", help="[all of the world]")
    parser.add_argument("--rows", nargs="+", type=int, help="training rows [the world's]")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--max-dev", type=int, default=0, help="dev rows at most")
    parser.add_argument("--max-eval", type=int, default=0, help="dev and test rows at most")
    parser.add_argument("--minutes", type=float, help="after which no target is begun")
    parser.add_argument("--dry-run", action="store_true", help="show what is done and what is not")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.world != "demo" and not options.model:
        parser.error("name the encoder's folder: --model")
    study = Study(WORLDS[options.world], options)
    began, found, failed = time.monotonic(), [], False
    for task, rows in study.plan():
        path = study.record(task, rows)
        if options.dry_run:
            print(f"{task}, {rows} rows: {'done' if path.is_file() else 'to do'}")
        elif not path.is_file():
            if options.minutes is not None and time.monotonic() - began > 60 * options.minutes:
                continue
            try:
                item = study.run_target(task, rows)
            except MtlError as error:  # the others are worth having without it
                print(f"error: {task}, {rows} rows: {error}", file=sys.stderr, flush=True)
                failed = True
                continue
            write_json(path, item)
            if not options.json:
                print(f"{task}, {rows} rows: {item['minutes']:.1f} minutes", flush=True)
        if path.is_file():
            found.append(json.loads(path.read_text()))
    if options.json:
        print(json.dumps(found))
    elif found and not options.dry_run:
        print(table(found))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
