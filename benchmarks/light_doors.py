"""Processor seconds of commands that compute nothing, now, or before and after.

    python benchmarks/light_doors.py
    git worktree add /tmp/before COMMIT
    python benchmarks/light_doors.py --before /tmp/before

Every figure is of a process of its own, user and system time; two trees take turns, command by
command, and the round with the fewest seconds counts. Each tree has a cache of its own, in which
the base is known from a first, unmeasured round; both look into one zoo, with one finished run.
Where the two do not say the same, that is said.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

HERE = Path(__file__).parents[1]
RUN = ["train", "--task", "demo/sentiment", "--set", "max_steps=1", "max_train_samples=64"]
DOORS: dict[str, list[str]] = {
    "methods ls": ["methods", "ls"],
    "methods settings": ["methods", "settings"],
    "methods count": ["methods", "count", "--method", "pfeiffer"],
    "train, method mistyped": ["train", "--suite", "demo", "--method", "pfeifer"],
    "train, setting mistyped": ["train", "--suite", "demo", "--set", "lrr=1"],
    "compose, task mistyped": ["compose", "--target", "ential"],
    "train --suite demo --dry-run": ["train", "--suite", "demo", "--dry-run"],
    "joint --dry-run": ["joint", "--suite", "demo", "--method", "hyperformer", "--dry-run"],
    "compose --dry-run": [
        "compose",
        "--target",
        "sentiment",
        "--sources",
        "sentiment",
        "--dry-run",
    ],
    "train, a finished run": RUN,
}
ENTRY = "import sys; from mtl.cli.main import entry; entry()"


def run(tree: Path, work: Path, argv: Sequence[str]) -> tuple[float, str]:
    """Processor seconds of a command in a tree, and what it says."""
    places = {"MTL_CACHE": work / f"cache-{tree.name}", "MTL_ZOO": work / "zoo", "MTL_RUNS": work}
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    environment |= {name: str(path) for name, path in places.items()}
    with tempfile.TemporaryFile("w+") as said:
        child = subprocess.Popen(
            [sys.executable, "-c", ENTRY, *argv],
            stdout=said,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=work,
        )
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read()
    if child.returncode not in {0, 2} or "Traceback" in text:
        sys.exit(f"mtl {' '.join(argv)} in {tree} ended with {child.returncode}:\n{text[-2000:]}")
    return used.ru_utime + used.ru_stime, text


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, help="a checkout to compare with")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    trees = {"before": options.before.resolve()} if options.before else {}
    trees |= {"after": HERE}
    best: dict[tuple[str, str], float] = {}
    with tempfile.TemporaryDirectory() as folder:
        run(next(iter(trees.values())), Path(folder), RUN)
        for number in range(options.rounds + 1):
            for door, argv in DOORS.items():
                said = set()
                for name, tree in trees.items():
                    seconds, text = run(tree, Path(folder), argv)
                    said.add(text)
                    if number:
                        best[door, name] = min(seconds, best.get((door, name), seconds))
                if len(said) > 1 and not number:
                    print(f"{door}: the two do not say the same", file=sys.stderr)
    rows = [[door, *(f"{best[door, name]:.2f}" for name in trees)] for door in DOORS]
    print(tabulate(rows, ["command", *trees], tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
