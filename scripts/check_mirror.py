"""Every task of some suites on real files: load, encode, train two steps, evaluate; a table.

    python scripts/check_mirror.py --data-root DIR --model DIR
    python scripts/check_mirror.py --data-root DIR --model DIR --suite superglue --json

Whatever a task raises is reported in its row; the exit code is the number of tasks that failed. It
says that a task's files are read as they are, nothing about scores: two steps teach nothing. Of
large splits the first ``--rows`` are trained and tested on.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from typing import Any

import numpy as np

from mtl.backbone import Network, build_head, load_backbone
from mtl.data import Passes, TaskData, encode, load_data
from mtl.engine import Attached, EvalSet, Group, TaskFeed, evaluate, open_device
from mtl.engine.device import seed_everything
from mtl.errors import MtlError
from mtl.methods import METHODS, RunFacts, attach
from mtl.tasks import load_suite, load_task


def run_task(name: str, protocol: str, backbone: Any, options: argparse.Namespace) -> dict:
    """One row of the table."""
    import torch

    began = time.perf_counter()
    spec = load_task(name)

    def load(rows: int | None) -> TaskData:
        return load_data(
            spec,
            data_root=options.data_root,
            protocol=protocol,
            max_train_samples=rows,
            max_eval_samples=rows,
            check_classes=False,  # format samples may have one class only
        )

    whole, data = dict(load(None).sizes), load(options.rows)
    labels = np.unique(data.splits["train"].labels)
    spec = data.spec
    sets = {split: encode(data, split, backbone.tokenizer) for split in ("train", "dev", "test")}
    seed_everything(0, "init")
    method = METHODS.get("pfeiffer")
    encoder = backbone.encoder()
    settings = method.settings(**method.defaults)
    tuned = attach(encoder, method, settings, "checked", RunFacts(2, "two_layer"))
    head = build_head(
        "two_layer", encoder.config, spec.num_outputs, pooler=backbone.pooler, kind=spec.kind
    )
    network = Network(encoder, head).train()
    groups = [*tuned.groups, Group("head", head.trained())]
    attached = Attached(network, {spec.id: spec}, groups)
    feed = TaskFeed(spec.id, sets["train"], options.batch, seed=0)
    optimiser = torch.optim.AdamW(
        [parameter for group in groups for parameter in group.parameters.values()], lr=1e-3
    )
    losses = []
    # Format samples have less than a batch: then a second epoch gives the second step.
    for task, rows in [*feed.order(0), *feed.order(1)][:2]:
        loss = torch.stack(list(attached.loss(feed.collate(task, rows)).values())).sum()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
    device = open_device("fp32")
    found = evaluate(attached, EvalSet(spec, sets["test"]), device, Passes(tokens=2048))
    values = {key: item["value"] for key, item in found.summary().items()}
    return {
        "task": spec.id,
        "kind": spec.kind,
        "train": whole["train"],
        "dev": whole["dev"],
        "test": whole["test"],
        "longest": int(sets["train"].lengths.max()),
        "loss": losses,
        "metrics": values,
        "seconds": round(time.perf_counter() - began, 1),
        "state": "good" if len(labels) > 1 or spec.kind == "span_extraction" else "good, one class",
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data-root", required=True, help="folder laid out as the Hub")
    parser.add_argument("--model", required=True, help="Hub name, folder, or 'demo'")
    parser.add_argument("--suite", nargs="+", default=["glue", "superglue"], help="suites")
    parser.add_argument("--rows", type=int, default=64, help="rows that are used of a split [64]")
    parser.add_argument("--batch", type=int, default=16, help="rows per training step [16]")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    options = parser.parse_args()
    logging.getLogger("adapters").setLevel(logging.ERROR)
    backbone = load_backbone(options.model)
    rows: list[dict[str, Any]] = []
    for name in options.suite:
        suite = load_suite(name)
        for task in suite.tasks:
            if any(row["task"] == task for row in rows):
                continue
            try:
                rows.append(run_task(task, suite.protocol, backbone, options))
            except MtlError as error:
                rows.append({"task": task, "state": f"failed: {error}"})
    failed = sum(row["state"].startswith("failed") for row in rows)
    if options.json:
        print(json.dumps({"tasks": rows, "failed": failed}))
        return failed
    from tabulate import tabulate

    for row in rows:
        row["loss"] = ", ".join(f"{value:.3f}" for value in row.get("loss", []))
        metrics = row.get("metrics", {})
        row["metrics"] = ", ".join(f"{key} {value:.3f}" for key, value in metrics.items())
    print(tabulate(rows, headers="keys", disable_numparse=True))
    print(f"\n{len(rows)} tasks, {failed} failed.")
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
