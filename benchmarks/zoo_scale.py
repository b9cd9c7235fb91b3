"""A zoo of ten thousand entries: how long listing, finding, checking and storing take.

    python benchmarks/zoo_scale.py                   10,000 entries in a temporary folder
    python benchmarks/zoo_scale.py --entries 2000 --json

Entries are as small as entries get (a kilobyte of tensors), so the figures are those of the zoo and
not of hashing. Commands run in processes of their own, start of Python and imports included; "after
the first" means with the index of the first listing. Everything is the median of ``--repeat`` runs
but what can be run only once.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import numpy as np  # noqa: E402
from safetensors.numpy import save_file  # noqa: E402
from zoo_bench import fill, manifest, store, task  # noqa: E402

from mtl.zoo import Zoo, open_zoo  # noqa: E402
from mtl.zoo.check import file_table  # noqa: E402
from mtl.zoo.manifest import record  # noqa: E402

TASKS, METHODS = 20, ("pfeiffer", "houlsby", "lora", "adakron", "compacter")


def place(number: int) -> tuple[str, str, int]:
    """Task, method and seed of the entry ``number``."""
    tasks, methods = number % TASKS, number // TASKS % len(METHODS)
    return f"task{tasks}", METHODS[methods], number // (TASKS * len(METHODS))


def make(zoo: Zoo, count: int) -> None:
    """Entries as :meth:`Zoo.commit` writes them, without its syncing of every one."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        pattern = Path(name)
        fill(pattern)
        for number in range(count):
            name, method, seed = place(number)
            score = {"test": {"accuracy": {"value": float(rng.random()), "stderr": 0.01, "n": 4}}}
            described = manifest(
                task=task(name), method=method, seed=seed, runhash=f"{number:016x}", metrics=score
            )
            ref = zoo.location("tiny-abababab", "toy", name, method, seed, described.runhash)
            folder = zoo.root / ref
            shutil.copytree(pattern, folder)
            weights = {"w": np.full((2, 3), number, np.float32)}
            save_file(weights, folder / "adapter.safetensors")
            value = record(described, file_table(folder, ref))
            (folder / "manifest.json").write_text(json.dumps(value, indent=2))
            (folder / "README.md").write_text("a card\n")


@dataclass(frozen=True)
class Cost:
    """Seconds on the clock (median and smallest), and those of a processor."""

    clock: float
    processor: float
    best: float = 0.0


def command(zoo: Zoo, *argv: str) -> Callable[[], Cost]:
    """``python -m mtl.zoo …`` as a function that runs it once."""
    line = [sys.executable, "-m", "mtl.zoo", *argv, "--zoo", str(zoo.root)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def run() -> Cost:
        before, spent = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
        clock, after = time.perf_counter() - before, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            raise SystemExit(f"{' '.join(line)}:\n{done.stdout[-500:]}{done.stderr[-2000:]}")
        processor = after.ru_utime + after.ru_stime - spent.ru_utime - spent.ru_stime
        return Cost(clock, processor)

    return run


def started() -> Cost:
    """What a process costs that only starts."""
    before, spent = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", "import numpy"], check=True)
    clock, after = time.perf_counter() - before, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - spent.ru_utime - spent.ru_stime
    return Cost(clock, processor)


def call(function: Callable[[], Any]) -> Callable[[], Cost]:
    """A function in this process, measured."""

    def run() -> Cost:
        before, spent = time.perf_counter(), time.process_time()
        function()
        return Cost(time.perf_counter() - before, time.process_time() - spent)

    return run


def median(run: Callable[[], Cost], repeat: int = 1) -> Cost:
    found = [run() for _ in range(repeat)]
    return Cost(
        statistics.median(cost.clock for cost in found),
        statistics.median(cost.processor for cost in found),
        min(cost.clock for cost in found),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entries", type=int, default=10_000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one line of JSON on standard output")
    options = parser.parse_args()
    rows: dict[str, Cost] = {}
    with tempfile.TemporaryDirectory() as name:
        os.environ["MTL_CACHE"] = f"{name}/cache"
        zoo = open_zoo(Path(name) / "zoo")
        print(f"writing {options.entries} entries", file=sys.stderr)
        make(zoo, options.entries)
        one = ("ls", "--task", "task3", "--method", "lora", "--sort", "metric", "--json")
        again = options.repeat
        shown = "{}/{}/seed{}".format(*place(options.entries // 2))
        rows["ls, the first"] = median(command(zoo, "ls"))
        rows["ls, after the first"] = median(command(zoo, "ls"), again)
        rows["ls of one task and method, by metric, JSON"] = median(command(zoo, *one), again)
        rows["show one entry"] = median(command(zoo, "show", shown), again)
        rows["python -c 'import numpy', for comparison"] = median(started, again)
        rows["Zoo.summaries() in a running process"] = median(call(zoo.summaries), again)
        rows["Zoo.entries(runhash=…), as before every run"] = median(
            call(lambda: zoo.entries(runhash=f"{5:016x}")), again
        )
        rows["store one more"] = median(
            call(lambda: store(zoo, manifest(task=task("more"), runhash="f" * 16)))
        )
        rows["fsck of everything"] = median(command(zoo, "fsck"))
    if options.json:
        seconds = {what: asdict(cost) for what, cost in rows.items()}
        print(json.dumps({"entries": options.entries, "seconds": seconds}))
    else:
        from tabulate import tabulate

        table = [
            [what, f"{cost.clock:.2f}", f"{cost.best:.2f}", f"{cost.processor:.2f}"]
            for what, cost in rows.items()
        ]
        headers = [f"{options.entries} entries", "s, median", "s, best", "s of processor"]
        print(tabulate(table, headers=headers, disable_numparse=True))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
