"""``mtl.report``: own adapters, compositions and joint models side by side; the heat map."""

from __future__ import annotations

import json
from collections.abc import Sequence

from mtl.cli.options import PlainParser


def main(argv: Sequence[str]) -> int:
    parser = PlainParser(prog="mtl.report", description=__doc__)
    parser.add_argument("--zoo", help="folder of the zoo [MTL_ZOO, ./adapters_zoo]")
    parser.add_argument("--suite", help="only entries of this suite")
    parser.add_argument("--target", help="only this task")
    parser.add_argument("--seeds", nargs="+", type=int, help="only runs of these seeds")
    parser.add_argument("--heatmap", metavar="PNG", help="draw the weights of a composition")
    parser.add_argument("--method", default="scalearn", help="the composition to draw")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    options = parser.parse_args(list(argv))

    from pathlib import Path

    from mtl.errors import RequestError
    from mtl.report import draw_heatmap, render, render_suite, results, suite_tables
    from mtl.report.tables import group_of
    from mtl.zoo import open_zoo
    from mtl.zoo.names import printable_lines

    zoo = open_zoo(options.zoo)
    entries = zoo.entries(suite=options.suite, task=options.target)
    if options.seeds:
        entries = [entry for entry in entries if entry.manifest.seed in options.seeds]
    if not entries:
        asked = {
            "suite": options.suite,
            "target": options.target,
            "seeds": " ".join(map(str, options.seeds or [])),
        }
        wanted = " ".join(f"--{name} {value}" for name, value in asked.items() if value)
        raise RequestError(
            f"The zoo {zoo.root} holds no entry{f' for {wanted}' if wanted else ''}; mtl.zoo ls "
            "lists what it has, mtl.train makes entries."
        )
    rows = results(entries)
    tables = []
    if not options.target:
        # a table per suite where one is asked for, or where something covers several tasks at once
        joint = {entry.manifest.suite for entry in entries if entry.manifest.kind == "joint"}
        chosen = [e for e in entries if options.suite or e.manifest.suite in joint]
        tables = [t for t in suite_tables(chosen, zoo.entries()) if len(t.tasks) > 1]
    if not rows and not tables:
        suites = sorted({entry.manifest.suite for entry in entries})
        raise RequestError(
            f"Only joint models of the zoo {zoo.root} were trained on {options.target}; a suite's "
            f"table shows them: mtl.report --suite {' or '.join(suites)}."
        )
    drawn = None
    if options.heatmap:
        runs = [e for e in entries if e.manifest.kind == "composition"]
        runs = [e for e in runs if e.manifest.method == options.method]
        groups = sorted({group_of(entry) for entry in runs})
        if len(groups) != 1:
            raise RequestError(
                f"--heatmap draws one composition over its seeds; {len(groups)} groups of "
                f"{options.method} fit. Narrow it with --suite, --target and --method."
            )
        draw_heatmap(runs, Path(options.heatmap))
        drawn = options.heatmap
    if options.json:
        found = [table.to_dict() for table in tables]
        lines = [row.to_dict() for row in rows]
        print(json.dumps({"rows": lines, "suites": found, "heatmap": drawn}))
        return 0
    text = "\n\n".join([*([render(rows)] if rows else []), *map(render_suite, tables)])
    print(printable_lines(text))
    if drawn:
        print(f"heat map: {drawn}")
    return 0
