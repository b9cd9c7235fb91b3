"""Runs side by side against the same runs one by one: what a step of a run costs.

    python benchmarks/side_by_side.py --model demo
    python benchmarks/side_by_side.py --model demo --method scalearn --batches 8 --runs 8
    python benchmarks/side_by_side.py --model roberta-base --batches 32 --tokens 64
    python benchmarks/side_by_side.py --model demo --whole
    python benchmarks/side_by_side.py --model demo --study --runs 6 --batches 8

N runs of one method on one base, other seeds and data, dropout on: forward, backward, clipping
and AdamW, as a run takes them (``mtl.engine``). Rows have half of ``--tokens`` to all of them.
Both ways take turns in one process; told are milliseconds of a run's step (of the processor; on a
GPU of the clock) and the median of the pairs' ratios, one by one over side by side, with quartiles.
``--whole`` takes whole runs on a task of the demo suite instead, evaluations, tests and files
included; ``--study`` a study of them, with one worker: the processor seconds of the command, start
of driver and worker included, one by one and with ``--side-by-side auto``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from tabulate import tabulate

from mtl.backbone import Backbone, Network, build_head, load_backbone
from mtl.compose.composition import COMPOSITIONS
from mtl.data import Encoded
from mtl.engine import Attached, Device, Group, Job, RunFolder, RunSettings, TaskFeed, open_device
from mtl.engine.device import seed_everything
from mtl.engine.loop import Step, take_step
from mtl.engine.optimise import Optimiser
from mtl.engine.passes import piece_overhead
from mtl.engine.shared_step import SharedStep
from mtl.methods import METHODS, RunFacts, attach
from mtl.tasks import TaskSpec

SPEC = TaskSpec(
    id="random/rows",
    data={"demo": "none"},
    kind="classification",
    inputs=("{text}",),
    metrics=("accuracy",),
    labels=("no", "yes"),
)
SOURCES = 4
"""Of a composition: Pfeiffer adapters at random."""


def rows_of(seed: int, rows: int, tokens: int, words: int, pad: int) -> Encoded:
    """Random rows of tokens/2 to ``tokens`` tokens."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(max(2, tokens // 2), tokens + 1, rows)
    return Encoded(
        name="train",
        labels=rng.integers(0, 2, rows),
        row=np.arange(rows, dtype=np.int64),
        choices=1,
        ids=rng.integers(5, words, int(lengths.sum())).astype(np.int32),
        types=None,
        start=np.cumsum([0, *lengths]).astype(np.int64),
        lengths=lengths.astype(np.int64),
        truncated=0,
        table={},
        pad_id=pad,
        fingerprint=f"random-{seed}",
    )


def attached_of(backbone: Backbone, method: str) -> Attached:
    """A method or a composition with a head on a copy of the encoder, as a run would train it."""
    encoder = backbone.encoder()
    head = build_head("two_layer", encoder.config, 2, pooler=backbone.pooler)
    network = Network(encoder, head)
    heads = {f"head.{key}": value for key, value in head.trained().items()}
    if method not in COMPOSITIONS.names():
        chosen = METHODS.get(method)
        tuned = attach(encoder, chosen, chosen.settings(), "task", RunFacts(100, "two_layer"))
        return tuned.attachment(network, {SPEC.id: SPEC}, heads)
    names = [f"source{k:02d}" for k in range(SOURCES)]
    pfeiffer = METHODS.get("pfeiffer")
    for name in names:
        attach(encoder, pfeiffer, pfeiffer.settings(), name, RunFacts(100, "two_layer"))
    for parameter in encoder.parameters():
        parameter.requires_grad_(False)
    composition = COMPOSITIONS.get(method)
    settings = composition.settings(**composition.defaults)
    composed = composition.attach(encoder, names, settings)
    groups = [Group("composition", composed.parameters, weight_decay=0.0), Group("head", heads)]
    return Attached(network, {SPEC.id: SPEC}, groups, penalties=composed.penalties)


def jobs_of(
    backbone: Backbone, method: str, runs: int, batch: int, tokens: int, device: Device
) -> list[tuple[Job, Optimiser]]:
    """N runs, ready to take steps."""
    found = []
    config = backbone.config
    settings = RunSettings(lr=1e-3, batch_size=batch)
    for seed in range(runs):
        seed_everything(seed, "init")
        attached = attached_of(backbone, method)
        attached.network.to(device.torch_device).train()
        rows = rows_of(seed, 64 * batch, tokens, config.vocab_size, config.pad_token_id or 0)
        width = backbone.base.hidden_size
        job = Job(
            attached=attached,
            feed=TaskFeed(SPEC.id, rows, batch, seed),
            dev={},
            settings=settings,
            seed=seed,
            identity=str(seed),
            folder=RunFolder(Path(os.devnull)),
            label=f"run {seed}",
            overhead=piece_overhead(settings, device.torch_device, width),
        )
        found.append((job, Optimiser(attached.groups(), settings, 10_000)))
    return found


def measured(options: argparse.Namespace, batch: int, runs: int) -> dict[str, Any]:
    """Both ways in turns: milliseconds of a run's step, ratio with quartiles."""
    backbone = load_backbone(options.model)
    device = open_device(
        options.precision, hidden_size=backbone.base.hidden_size, threads=options.threads
    )
    cuda = device.torch_device.type == "cuda"
    make = partial(jobs_of, backbone, options.method, runs, batch, options.tokens, device)
    alone, side = make(), make()
    shared = SharedStep([job for job, _ in side], [optimiser for _, optimiser in side], device)
    states = [device.rng_state() for _ in side]
    count = [0]

    def step_of(job: Job, optimiser: Optimiser) -> Step:
        task, rows = job.feed.order(0)[count[0] % 64]
        return Step(task, rows, optimiser, count[0])

    def one_by_one() -> None:
        for job, optimiser in alone:
            take_step(job, device, step_of(job, optimiser))
            optimiser.clear()

    def together() -> None:
        shared.take([step_of(*each) for each in side], states)

    def seconds(call: Callable[[], object]) -> float:
        clock = time.perf_counter if cuda else time.process_time
        start = clock()
        call()
        if cuda:
            torch.cuda.synchronize()
        return clock() - start

    times: list[tuple[float, float]] = []
    for number in range(options.rounds + 2):
        count[0] = number
        pair = seconds(one_by_one), seconds(together)
        if number > 1:
            times.append(pair)
    shared.release()
    ratios = sorted(one / other for one, other in times)
    low, middle, high = statistics.quantiles(ratios, n=4)
    each = [statistics.median(column) / runs * 1e3 for column in zip(*times, strict=True)]
    return {
        "method": options.method,
        "rows": batch,
        "tokens": options.tokens,
        "runs": runs,
        "one_by_one_ms": round(each[0], 2),
        "side_by_side_ms": round(each[1], 2),
        "ratio": round(middle, 3),
        "quartiles": [round(low, 3), round(high, 3)],
    }


def whole(options: argparse.Namespace, runs: int) -> dict[str, Any]:
    """Whole runs of a task of the demo suite, both ways in turns, in a zoo of their own each."""
    from mtl.runs import execute_all, open_workspace
    from mtl.runs.context import open_context
    from mtl.runs.settings import Overrides
    from mtl.tasks import load_suite, load_task
    from mtl.train import plan_adapters

    times: list[list[float]] = []
    values = {"epochs": 6, "max_train_samples": 300, "batch_size": options.batches[0]}
    with tempfile.TemporaryDirectory() as root:
        for number in range(options.rounds + 1):
            pair = []
            for beside in (1, runs):
                place = Path(root) / f"{number}-{beside}"
                workspace = open_workspace(zoo=place / "zoo", runs=place / "runs", beside=beside)
                context = open_context(
                    load_suite("demo"),
                    model=options.model,
                    recipe=None,
                    protocol=None,
                    overrides=Overrides(values),
                    workspace=workspace,
                    check=lambda recipe, overrides: None,
                )
                seeds = range(runs)
                task = load_task("demo/entail")
                planned = plan_adapters(context, [task], method=options.method, seeds=list(seeds))
                start = time.process_time()
                reports = execute_all(planned, workspace)
                pair.append(time.process_time() - start)
                assert all(report.status == "done" for report in reports)
            if number:
                times.append(pair)
    ratios = [one / other for one, other in times]
    return {
        "method": options.method,
        "rows": options.batches[0],
        "runs": runs,
        "one_by_one_s": round(statistics.median(one for one, _ in times) / runs, 2),
        "side_by_side_s": round(statistics.median(other for _, other in times) / runs, 2),
        "ratio": round(statistics.median(ratios), 3),
        "range": [round(min(ratios), 3), round(max(ratios), 3)],
    }


def study(options: argparse.Namespace, runs: int) -> dict[str, Any]:
    """A study of N seeds on demo/entail by one worker, both ways in turns, each in its own zoo."""
    import yaml

    times: dict[str, list[float]] = {"1": [], "auto": []}
    content = {
        "suite": "demo",
        "tasks": ["entail"],
        "model": options.model,
        "seeds": list(range(runs)),
        "set": {"epochs": 6, "max_train_samples": 300, "batch_size": options.batches[0]},
        "train": [{"method": options.method}],
    }
    with tempfile.TemporaryDirectory() as root:
        file = Path(root) / "seeds.yaml"
        file.write_text(yaml.safe_dump(content))
        for number in range(options.rounds):
            for beside in sorted(times, reverse=bool(number % 2)):
                place = Path(root) / f"{number}-{beside}"
                line = [sys.executable, "-m", "mtl.study", "run", str(file), "--workers", "1"]
                line += [
                    "--side-by-side",
                    beside,
                    "--zoo",
                    f"{place}/zoo",
                    "--runs",
                    f"{place}/runs",
                ]
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                subprocess.run([*line, "--json"], check=True, stdout=subprocess.DEVNULL)
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                times[beside].append(used)
    ratios = [one / other for one, other in zip(times["1"], times["auto"], strict=True)]
    return {
        "method": options.method,
        "rows": options.batches[0],
        "runs": runs,
        "one_by_one_s": round(statistics.median(times["1"]), 1),
        "side_by_side_s": round(statistics.median(times["auto"]), 1),
        "ratio": round(statistics.median(ratios), 3),
        "range": [round(min(ratios), 3), round(max(ratios), 3)],
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="demo", help="Hub name, folder, or demo")
    parser.add_argument("--method", default="pfeiffer", help="of stage one, or a composition")
    parser.add_argument("--batches", type=int, nargs="+", default=[4, 8, 32], help="rows")
    parser.add_argument("--tokens", type=int, default=16, help="of the longest row")
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="N")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--whole", action="store_true", help="whole runs on demo/entail")
    parser.add_argument("--study", action="store_true", help="a study of such runs, one worker")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    os.environ["MTL_QUIET"] = "1"
    if options.study:
        rows = [study(options, runs) for runs in options.runs if runs > 1]
    elif options.whole:
        rows = [whole(options, runs) for runs in options.runs if runs > 1]
    else:
        rows = [measured(options, batch, n) for batch in options.batches for n in options.runs]
    print(json.dumps(rows) if options.json else tabulate(rows, headers="keys"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
