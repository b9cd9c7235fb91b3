"""``mtl.report --curve``: a learning curve drawn from what is in the zoo."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mtl.errors import RequestError

if TYPE_CHECKING:
    from mtl.report.curve import Curve
    from mtl.zoo import Entry


def show(
    options: Namespace,
    entries: Sequence[Entry],
    named: Entry | None,
    beside: Sequence[Entry] = (),
) -> int:
    """Draw the curve that ``entries`` make, and print it.

    Args:
        named: one of the compositions of the curve that is meant, where there are several.
        beside: own adapters and controls that ``entries`` leave out.

    Raises:
        RequestError: there is no curve, or several; lists a composition of each.
    """
    from mtl.files import user_path
    from mtl.report.curve import curves, draw_curve, render

    others = [name for name in ("heatmap", "ensemble", "pick") if getattr(options, name)]
    if others:
        raise RequestError(f"--curve shows one curve: --{others[0]} says nothing of it.")
    path = user_path(options.curve, "--curve")
    curve = chosen(curves(entries, beside), named, options.method)
    draw_curve(curve, path)
    if options.json:
        print(json.dumps({"curve": curve.to_dict(), "picture": str(path)}))
        return 0
    print(f"{render(curve)}\npicture: {path}")
    return 0


def chosen(found: Sequence[Curve], named: Entry | None, method: str | None) -> Curve:
    """The one curve that is meant. Raises RequestError."""
    fitting = [
        curve
        for curve in found
        if (method is None or curve.method == method) and (named is None or named.ref in curve.refs)
    ]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        what = f" with {named.ref} on it" if named else f" of {method}" if method else ""
        raise RequestError(
            f"--curve: there is no curve{what}: compositions of one target that differ in their "
            "seeds and number of training rows only. mtl.compose --rows makes them."
        )
    listed = "\n  ".join(
        f"{curve.refs[-1]}  {curve.task}, {curve.method} of {max(curve.sources)} sources at "
        f"{', '.join(str(point.rows) for point in curve.points)} rows"
        for curve in fitting
    )
    raise RequestError(
        f"--curve draws one curve; {len(fitting)} fit. Say which with --entry:\n  {listed}"
    )
