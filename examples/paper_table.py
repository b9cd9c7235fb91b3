"""A paper's table: methods by tasks of a suite, mean ± standard deviation over seeds.

python examples/paper_table.py                                  # the demo suite
python examples/paper_table.py --suite glue --methods pfeiffer lora --seeds 0 1 2 3 4
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

from tabulate import tabulate

import mtl
from mtl.tasks import load_suite


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", default="demo", help="[%(default)s]")
    parser.add_argument("--tasks", nargs="+", help="only these of the suite")
    parser.add_argument("--methods", nargs=2, default=["pfeiffer", "bitfit"], help="[%(default)s]")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1], help="[%(default)s]")
    parser.add_argument("--steps", type=int, default=0, help="of every run [the recipe's epochs]")
    options = parser.parse_args(argv)
    settings: dict[str, Any] = {"max_steps": options.steps} if options.steps else {}

    rows = []
    for task in options.tasks or load_suite(options.suite).tasks:
        cells = []
        for method in options.methods:
            entries = [
                mtl.train_adapter(task, suite=options.suite, method=method, seed=seed, **settings)
                for seed in options.seeds
            ]
            cells.append([entry.manifest.headline()["value"] for entry in entries])
        rows.append([f"{task} ({entries[0].manifest.task['headline']})", *map(cell, cells)])
    print(tabulate(rows, ["task", *options.methods], tablefmt="github"))
    print(f"Mean ± standard deviation over seeds {', '.join(map(str, options.seeds))}.")


def cell(values: Sequence[float]) -> str:
    """``0.8120 ± 0.0041``; one seed has no deviation."""
    return f"{mean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
