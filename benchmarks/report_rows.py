"""What a report of many rows costs: processor seconds, without and with what was kept of the last.

    python benchmarks/report_rows.py --zoo ZOO                  70 rows
    python benchmarks/report_rows.py --zoo ZOO --rows 200 --json

Copies ZOO (left as it is) and repeats its compositions under other learning rates, with the answers
they gave, until a report has so many rows. Every figure is of a process of its own, imports
included; cold means an empty MTL_CACHE, warm the second report after it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from mtl.files import sha256_json
from mtl.report import results
from mtl.report.tables import group_of
from mtl.zoo import Entry, Zoo, open_zoo
from mtl.zoo.manifest import record


def fill(zoo: Zoo, rows: int) -> None:
    """Repeat compositions until there are so many rows."""
    entries = zoo.entries()
    groups: dict[object, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(group_of(entry), []).append(entry)
    composed = [found for found in groups.values() if found[0].manifest.kind == "composition"]
    missing = rows - len(groups)
    for number, group in zip(range(missing), itertools.cycle(composed), strict=False):
        for entry in group:
            again(zoo, entry, number)


def again(zoo: Zoo, entry: Entry, number: int) -> None:
    """The entry once more, as if it had trained at another rate."""
    settings = {**entry.manifest.run_settings, "lr": 1e-5 * (number + 1)}
    runhash = sha256_json([entry.digest, number])
    described = replace(entry.manifest, run_settings=settings, runhash=runhash)
    folder = entry.folder.with_name(f"seed{described.seed}-{runhash[:8]}")
    shutil.copytree(entry.folder, folder)
    text = json.dumps(record(described, entry.files))
    (folder / "manifest.json").write_text(text, encoding="utf-8")


def seconds(zoo: Path, cache: Path) -> float:
    """Processor seconds of one report."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "mtl.report", "--zoo", str(zoo), "--json"],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "MTL_CACHE": str(cache)},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--zoo", required=True, help="a zoo with compositions of several seeds")
    parser.add_argument("--rows", type=int, default=70)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root, cache = Path(name) / "zoo", Path(name) / "cache"
        shutil.copytree(options.zoo, root)
        fill(open_zoo(root), options.rows)
        found = results(open_zoo(root).entries())
        cold, warm = seconds(root, cache), seconds(root, cache)
    compared = sum(len(row.compared) for row in found)
    figures = {"rows": len(found), "compared seeds": compared, "cold": cold, "warm": warm}
    print(json.dumps(figures) if options.json else figures)


if __name__ == "__main__":
    main()
