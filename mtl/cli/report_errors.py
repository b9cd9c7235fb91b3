"""``mtl.report --errors ENTRY``: what an entry gets wrong."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import Any

from mtl.errors import RequestError

ALONE = ("split", "task", "data_root", "png", "top")
"""Options that say something of ``--errors`` only."""


def add_options(parser: Any) -> None:
    """Add the options to the parser of ``mtl.report``."""
    from mtl.cli.options import add_task_files

    errors = parser.add_argument_group("what an entry gets wrong")
    errors.add_argument(
        "--errors",
        metavar="ENTRY",
        help="classes, confusions, calibration and mistakes of this entry; of a composition also "
        "what it mends and breaks beside the own adapter",
    )
    errors.add_argument("--split", help="the split whose stored answers are looked at [test]")
    errors.add_argument(
        "--against",
        metavar="NAME",
        help="compare with this entry, row by row; without --errors: the results of the zoo with "
        "this published table (--published lists them)",
    )
    errors.add_argument("--top", type=int, help="list so many pairs and rows [10]")
    errors.add_argument("--png", metavar="FILE", help="draw confusions and calibration")
    errors.add_argument("--data-root", help="local mirror of Hub datasets [MTL_DATA_ROOT]")
    add_task_files(errors)


def refuse(options: Namespace) -> None:
    """Refuse options that say nothing without ``--errors``, or nothing with it."""
    if options.errors is None:
        given = [name for name in ALONE if getattr(options, name)]
        if given:
            flag = f"--{given[0].replace('_', '-')}"
            raise RequestError(f"{flag} says something of --errors ENTRY: name the entry, too.")
        return
    for name in (
        "suite",
        "seeds",
        "where",
        "heatmap",
        "curve",
        "method",
        "entry",
        "pick",
        "ensemble",
    ):
        if getattr(options, name, None):
            raise RequestError(f"--errors looks at one entry: --{name} says nothing of it.")
    if options.top is not None and not 0 <= options.top <= 1000:
        raise RequestError(f"--top {options.top} must be from 0 to 1000.")


def show(options: Namespace) -> int:
    """Print the report on one entry, and write page and picture where asked for."""
    from mtl.cli.common import quieten
    from mtl.face.looking import look
    from mtl.files import user_path
    from mtl.report.errors import TOP
    from mtl.report.errors_page import write_page
    from mtl.report.errors_text import draw_errors, render_errors
    from mtl.runs.workspace import open_workspace
    from mtl.zoo import open_zoo

    zoo = open_zoo(options.zoo)
    entry = zoo.get(options.errors)
    other = zoo.get(options.against) if options.against else None
    quieten()
    report, found = look(
        entry,
        open_workspace(zoo=zoo.root, data_root=options.data_root, tasks=options.task),
        options.split or "test",
        options.target,
        other,
        TOP if options.top is None else options.top,
        strict=bool(options.task or options.data_root),
    )
    written = {}
    if options.png:
        draw_errors(report, found, user_path(options.png, "--png"))
        written["png"] = options.png
    if options.html:
        write_page(report, found, user_path(options.html, "--html"))
        written["html"] = options.html
    if options.json:
        print(json.dumps({**report.to_dict(), "written": written}))
        return 0
    print(render_errors(report))
    for what, file in written.items():
        print(f"{what}: {file}")
    return 0
