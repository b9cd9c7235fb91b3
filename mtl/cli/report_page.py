"""``mtl.report --html``: the report as one page."""

from __future__ import annotations

import json
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mtl.report.page_sources import Transfer
    from mtl.report.published import PublishedTable
    from mtl.zoo import Entry, Zoo

ELSEWHERE = ("heatmap", "curve", "curves", "ensemble", "tests", "variance", "entry", "method")
"""Options that ask for something else than a report's page."""


def asked(options: Namespace) -> bool:
    """Whether a report's page is asked for.

    Raises:
        RequestError: with an option that asks for something else, or a name that is no file's.
    """
    if not options.html or options.errors:
        return False
    from mtl.errors import RequestError
    from mtl.files import user_path

    for name in ELSEWHERE:
        if getattr(options, name):
            raise RequestError(f"--html writes all of a report as a page: leave --{name} out.")
    user_path(options.html, "--html")
    return True


def show(
    options: Namespace,
    argv: Sequence[str],
    zoo: Zoo,
    entries: Sequence[Entry],
    table: PublishedTable | None,
) -> int:
    """Write the page of what ``entries`` say."""
    from mtl.engine.folder import runs_folder
    from mtl.files import user_path
    from mtl.report import suite_tables
    from mtl.report.against import compare
    from mtl.report.dev_curves import dev_curves
    from mtl.report.page import Shown, write_page
    from mtl.report.searches import searches_of
    from mtl.report.tables import compared_with, rows_and_runs
    from mtl.zoo.machine import portable_command
    from mtl.zoo.merged import again_text, once

    path = user_path(options.html, "--html")
    twice, entries = again_text(entries), once(entries)
    beside = compared_with(entries, zoo) if options.suite or options.where else []
    rows = rows_and_runs(entries, pick=options.pick, beside=beside)
    curves, lost = dev_curves(entries, runs_folder(options.runs))
    suites = [] if options.target else suite_tables(entries, zoo.entries(), options.suite)
    shown = Shown(
        title=_title(options, entries),
        command=portable_command(["python", "-m", "mtl.report", *argv]),
        entries=entries,
        rows=rows,
        suites=[found for found in suites if len(found.tasks) > 1],
        curves=curves,
        lost=lost,
        transfer=_transfer(zoo, entries),
        searches=searches_of(entries, runs_folder(options.runs)),
        against=None if table is None else compare(table, entries),
        notes=twice,
    )
    write_page(shown, path)
    if options.json:
        told = {"html": str(path), "rows": [row.to_dict() for row, _ in rows], "lost": lost}
        print(json.dumps({"command": "report", **told}))
    else:
        print(f"page: {path}")
    return 0


def _title(options: Namespace, entries: Sequence[Entry]) -> str:
    suites = sorted({entry.manifest.suite for entry in entries})
    what = options.target or options.suite or ", ".join(suites[:3]) + (" …" * (len(suites) > 3))
    return f"Results on {what}"


def _transfer(zoo: Zoo, entries: Sequence[Entry]) -> Transfer:
    """What each source does alone for the tasks of ``entries``, on the base that most are of."""
    from mtl.graph import graph_folder
    from mtl.graph.matrix import elsewhere_lines, transfer_matrix
    from mtl.graph.opening import open_graph
    from mtl.report.page_sources import Transfer

    bases = Counter(entry.manifest.base["fingerprint"] for entry in entries)
    base = bases.most_common(1)[0][0]
    graph, problems = open_graph(zoo, graph_folder(zoo.root), base)
    targets = sorted({entry.manifest.task["id"] for entry in entries})
    found = transfer_matrix(graph, "measured", targets=targets)
    if not found.targets:
        why = "Not measured: no composition of a single source was run beside an own adapter."
        return Transfer(missing=why, said=problems)
    name = f"{found.method}, base {base[:8]}" if len(bases) > 1 else str(found.method)
    return Transfer(
        name,
        found.targets,
        found.sources,
        found.values,
        found.low,
        found.high,
        found.caveats,
        said=[*problems, *elsewhere_lines(found)],
    )
