"""``mtl.report --curves``: dev over the steps of training, from the events of the runs."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mtl.errors import RequestError
from mtl.words import counted

if TYPE_CHECKING:
    from mtl.zoo import Entry


def show(options: Namespace, entries: Sequence[Entry]) -> int:
    """Draw them. Raises RequestError where no run of ``entries`` has left its events here."""
    from mtl.engine.folder import runs_folder
    from mtl.files import user_path
    from mtl.report.dev_curves import dev_curves, draw_dev_curves

    for name in ("heatmap", "curve", "ensemble", "pick", "entry"):
        if getattr(options, name):
            raise RequestError(f"--curves draws all runs that are asked for: leave --{name} out.")
    path = user_path(options.curves, "--curves")
    runs = runs_folder(options.runs)
    chosen = [e for e in entries if options.method in (None, e.manifest.method)]
    found, lost = dev_curves(chosen, runs)
    if not found:
        raise RequestError(
            f"--curves: {counted(len(chosen), 'entry', 'entries')} and no events of their runs in "
            f"{runs}. They are on the machine that trained them: name its folder with --runs."
        )
    draw_dev_curves(found, path)
    if lost:
        print(f"note: of {counted(len(lost), 'run')} the events are not in {runs}", file=sys.stderr)
    if options.json:
        drawn = [
            {"task": task, "metric": metric, "line": line.label, "seeds": sorted(line.seeds)}
            for (task, metric), lines in found.items()
            for line in lines
        ]
        print(json.dumps({"curves": str(path), "lines": drawn, "lost": lost}))
    else:
        print(f"dev curves: {path}")
    return 0
