"""bf16 beside fp32 on a CPU: what it saves, and what it does to the results.

    python benchmarks/bf16.py --model FOLDER                             # speed
    python benchmarks/bf16.py --model FOLDER --quality --data-root DIR   # quality

Speed: texts per second of an evaluation and training steps (a Pfeiffer adapter, AdamW and clipping,
dropout on) at several B × T of random tokens. Both take turns in one process, in one thread; told
are medians of their processor seconds and the median of the pairs' ratios, with quartiles.
Quality: the same runs in both, task by task and seed by seed (few training rows), and the gap of
their headline metric on test, bf16 minus fp32, with Student's 95 % interval over the pairs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from tabulate import tabulate

from mtl.engine import Device, open_device
from mtl.engine.hardware import cpu_has_bf16

PRECISIONS = ("fp32", "bf16")
SETTINGS = {
    "shots": 300,
    "sample": "drawn",
    "epochs": 4,
    "lr": 2e-3,
    "max_length": 64,
    "select": "last",
    "patience": 0,
    "eval_every": 1000,
}
"""Of the runs that are compared; dev and test are limited by options."""


def seconds(call: Callable[[], object]) -> float:
    """Of the processor."""
    start = time.process_time()
    call()
    return time.process_time() - start


def compared(calls: dict[str, Callable[[], object]], pairs: int) -> dict[str, Any]:
    """Median seconds of each call; median and quartiles of first / second over the pairs."""
    for call in calls.values():  # the first one pays for what is made once
        call()
    rounds = [[seconds(call) for call in calls.values()] for _ in range(pairs)]
    ratios = [first / second for first, second in rounds]
    low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
    medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
    return {
        **dict(zip(calls, medians, strict=True)),
        "ratio": round(float(middle), 2),
        "quartiles": [round(float(low), 2), round(float(high), 2)],
    }


def speed(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row per shape and kind of work."""
    from mtl.backbone import Network, build_head, load_backbone
    from mtl.backbone.held import hold
    from mtl.engine import RunSettings
    from mtl.engine.attached import Group
    from mtl.engine.optimise import Optimiser
    from mtl.methods import METHODS, RunFacts, attach

    base = load_backbone(options.model)
    if options.held:
        base = hold(base, "bf16")
    encoder, method = base.encoder(), METHODS.get("pfeiffer")
    tuned = attach(
        encoder, method, method.settings(**method.defaults), "a", RunFacts(1, "two_layer")
    )
    network = Network(encoder, build_head("two_layer", encoder.config, 2, pooler=None))
    head = Group("head", {f"head.{name}": p for name, p in network.head.named_parameters()})
    optimiser = Optimiser([*tuned.groups, head], RunSettings(lr=1e-4), 10**6)
    device = open_device("fp32")
    found = []
    for shape in options.shapes:
        rows, tokens = map(int, shape.split("x"))
        torch.manual_seed(0)
        batch = {
            "input_ids": torch.randint(5, 20000, (rows, tokens)),
            "attention_mask": torch.ones(rows, tokens, dtype=torch.long),
        }
        labels = torch.randint(0, 2, (rows,))

        def answer(on: Device, batch: Any = batch) -> None:
            network.eval()
            with torch.no_grad(), on.autocast():
                network(batch)

        def train(on: Device, batch: Any = batch, labels: Any = labels) -> None:
            network.train()
            with on.autocast():
                loss = torch.nn.functional.cross_entropy(network(batch).float(), labels)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(optimiser.parameters, 1.0)
            optimiser.step(0)
            optimiser.clear()

        for name, work in (("evaluation", answer), ("training step", train)):
            both = {p: partial(work, Device(device.accelerator, p)) for p in PRECISIONS}
            row = compared(both, options.pairs)
            told = {p: round(row[p] * 1e3, 1) for p in PRECISIONS}
            each = {p: round(rows / row[p], 1) for p in PRECISIONS}
            found.append(
                {
                    "what": name,
                    "B × T": f"{rows} × {tokens}",
                    **{f"{p}, ms": told[p] for p in PRECISIONS},
                    **{f"{p}, texts per second": each[p] for p in PRECISIONS},
                    "fp32 / bf16": row["ratio"],
                    "quartiles": row["quartiles"],
                }
            )
    return found


def quality(options: argparse.Namespace) -> dict[str, Any]:
    """Every run in both precisions; a row per task, and all pairs together."""
    import mtl

    values: dict[str, list[tuple[float, ...]]] = {}
    cost: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    limits = {"max_dev_samples": options.dev, "max_eval_samples": options.test}
    with tempfile.TemporaryDirectory() as folder:
        for task in options.tasks:
            for seed in range(options.seeds):
                pair = []
                for precision in PRECISIONS:
                    start = time.process_time()
                    entry = mtl.train_adapter(
                        task,
                        seed=seed,
                        model=options.model,
                        recipe="none",
                        zoo=f"{folder}/zoo",
                        runs=f"{folder}/runs",
                        data_root=options.data_root,
                        progress=False,
                        precision=precision,
                        **SETTINGS,
                        **limits,
                    )
                    cost[precision].append(time.process_time() - start)
                    pair.append(float(entry.manifest.headline()["value"]))
                values.setdefault(task, []).append(tuple(pair))
                print(f"{task}, seed {seed}: {pair[0]:.4f} {pair[1]:.4f}", file=sys.stderr)
    rows = [_row(task, found) for task, found in values.items()]
    rows.append(_row("all", [pair for found in values.values() for pair in found]))
    processor = {p: round(statistics.mean(cost[p]), 1) for p in PRECISIONS}
    return {"settings": {**SETTINGS, **limits}, "seconds of a run": processor, "rows": rows}


def _row(task: str, pairs: list[tuple[float, ...]]) -> dict[str, Any]:
    """Means of both precisions, their difference and its interval."""
    from scipy.stats import t

    first, second = (np.array(column) for column in zip(*pairs, strict=True))
    gaps, n = second - first, len(pairs)
    half = t.ppf(0.975, n - 1) * gaps.std(ddof=1) / n**0.5 if n > 1 else float("nan")
    return {
        "task": task,
        "fp32": round(float(first.mean()), 4),
        "bf16": round(float(second.mean()), 4),
        "bf16 − fp32": round(float(gaps.mean()), 4),
        "± 95 %": round(float(half), 4),
        "pairs": n,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--shapes", nargs="+", default=["32x32", "32x128"], metavar="BxT")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--held", action="store_true", help="the base held in bf16, for both")
    parser.add_argument("--quality", action="store_true", help="runs instead of steps")
    parser.add_argument("--data-root")
    parser.add_argument(
        "--tasks",
        nargs="+",
        default=["glue/sst2", "glue/stsb", "glue/mrpc", "glue/qnli", "glue/cola"],
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dev", type=int, default=64, help="dev rows")
    parser.add_argument("--test", type=int, default=300, help="test rows")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {"processor computes in bf16": cpu_has_bf16()}
    if options.quality:
        found |= quality(options)
    else:
        found["rows"] = speed(options)
    if options.json:
        print(json.dumps(found))
        return
    print(tabulate(found["rows"], headers="keys"))
    print({key: value for key, value in found.items() if key != "rows"})


if __name__ == "__main__":
    main()
