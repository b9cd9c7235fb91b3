"""What ``mtl.predict`` costs beside a bare loop over the same network: seconds of the processor.

    python benchmarks/predict_file.py ENTRY FILE.csv [--model FOLDER] [--zoo DIR] [--rounds 3]

The bare loop is what one writes by hand: read the file with ``csv``, tokenise, batches sorted by
length in passes of the same size, forward, argmax, write with ``csv``. Both take turns in one
process; the network, the tokenizer and the threads are the same ones.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mtl
from mtl.data import eval_order
from mtl.data.new_rows import NEW, new_rows
from mtl.predict.job import Job, answer_file
from mtl.predict.tables import to_table
from mtl.runs.loading import answer_passes


def bare(model: mtl.Model, source: Path, target: Path) -> None:
    """A loop by hand: everything once, nothing checked."""
    spec = model.spec()
    with source.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    columns = [[row[name] for row in rows] for name in spec.columns]
    tokens = model.backbone.tokenizer(*columns, truncation=True, max_length=spec.max_length)
    lengths = np.array([len(ids) for ids in tokens["input_ids"]])
    network, device = model.loaded.network.eval(), model.device.torch_device
    answers = np.zeros(len(rows), dtype=np.int64)
    for batch in batches(lengths, model):
        width = int(lengths[batch].max())
        padded: dict[str, Any] = {
            name: torch.tensor(
                [
                    tokens[name][row] + [pad] * (width - len(tokens[name][row]))
                    for row in batch.tolist()
                ],
                device=device,
            )
            for name, pad in (
                ("input_ids", model.backbone.tokenizer.pad_token_id),
                ("attention_mask", 0),
                ("token_type_ids", 0),
            )
            if name in tokens
        }
        with torch.no_grad(), model.loaded.attached.evaluating():
            answers[batch] = network(padded).argmax(dim=-1).cpu().numpy()
    with target.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([*rows[0], "prediction"])
        for row, place in zip(rows, answers, strict=True):
            writer.writerow([*row.values(), spec.labels[int(place)]])


def batches(lengths: np.ndarray, model: mtl.Model) -> list[np.ndarray]:
    """Batches sorted by length, as many tokens at once as ``mtl`` takes."""
    passes = answer_passes(model.entry)
    order = np.argsort(lengths, kind="stable")[::-1]
    found, start = [], 0
    while start < len(order):
        width = int(lengths[order[start]])
        size = max(1, passes.tokens // width) if passes.tokens else passes.rows
        size = min(size, passes.rows) if passes.rows else size
        found.append(order[start : start + size])
        start += size
    return found


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the clock, and of the processor."""
    clock, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - clock, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("entry")
    parser.add_argument("file", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--zoo")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    model = mtl.load(options.entry, model=options.model, zoo=options.zoo)
    spec = model.spec()
    with options.file.open(newline="") as stream:
        sample = list(csv.DictReader(stream))
    encoded = model.backbone.encode(new_rows(spec, to_table(spec, sample)), NEW)
    passes = len(eval_order(encoded, answer_passes(model.entry)))
    times: dict[str, list[float]] = {"bare": [], "mtl": []}
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder) / "ours.csv", Path(folder) / "theirs.csv"
        bare(model, options.file, theirs)  # once unmeasured
        for _ in range(options.rounds):
            times["bare"].append(timed(lambda: bare(model, options.file, theirs))[1])
            job = Job(options.file, ours, overwrite=True)
            times["mtl"].append(timed(lambda job=job: answer_file(model, job))[1])  # type: ignore[misc]
        with ours.open() as one, theirs.open() as other:
            pairs = zip(csv.DictReader(one), csv.DictReader(other), strict=True)
            equal = [a["prediction"] == b["prediction"] for a, b in pairs]
    best = {name: min(values) for name, values in times.items()}
    print(
        json.dumps(
            {
                "rows": len(sample),
                "passes": passes,
                "processor seconds": best,
                "ratio": best["mtl"] / best["bare"],
                "equal answers": float(np.mean(equal)),
            }
        )
    )


if __name__ == "__main__":
    main()
