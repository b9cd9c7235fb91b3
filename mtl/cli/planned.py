"""What stage one and joint runs do with what was planned: show it, or tell it and run it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mtl.cli import common, tell
from mtl.cli.grid import Grid, refuse_twins
from mtl.cli.print_config import config_text
from mtl.runs import execute_all

if TYPE_CHECKING:
    from argparse import Namespace

    from mtl.cli.plan import Planned
    from mtl.runs import Report
    from mtl.runs.context import Context


def run_planned(
    planned: Planned, grid: Grid, context: Context, options: Namespace
) -> tuple[dict[str, Any], list[Report]] | None:
    """What was told, as JSON, and what became of the runs.

    None where ``--print-config`` or ``--dry-run`` asked for no more than to be shown.

    Raises:
        RequestError: two points of the grid are one run.
    """
    refuse_twins(planned, grid)
    if options.print_config:
        print(config_text(planned, grid, context, options))
        return None
    common.note_rates(planned, context)
    if options.dry_run:
        tell.print_dry_run(planned, context, as_json=options.json)
        return None
    told = tell.tell(planned, context)
    runs = [run for _, listed in planned for run in listed]
    return told, execute_all(runs, context.workspace, wait=options.wait)
