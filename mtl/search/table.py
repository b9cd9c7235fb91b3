"""The trials of a search as a table, and what they say."""

from __future__ import annotations

from typing import Any

from tabulate import tabulate

from mtl.search.searching import Found, at_an_edge
from mtl.search.trying import Tried


def search_text(found: Found) -> str:
    """A table of all trials, best first, and what that says."""
    keys = [item.key for item in found.space]
    ranked = sorted(found.tried, key=lambda item: (item.dev is None, -(item.dev or 0), item.number))
    rows = [
        [
            item.number,
            *(_short(item.values[key]) for key in keys),
            "–" if item.dev is None else f"{item.dev:.4f}",
            "" if item.stderr is None else f"{item.stderr:.4f}",
            item.state + (f": {item.reason.splitlines()[0][:60]}" if item.reason else ""),
            "as it is" if item.number == 0 else "",
            item.steps,
            "◀" if item is found.best else "",
        ]
        for item in ranked
    ]
    headers = ["trial", *keys, f"dev {found.metric}", "± se", "", "", "steps", "best"]
    table = tabulate(rows, headers=headers, disable_numparse=True)
    plain, best = found.tried[0], found.best
    if best is plain:
        said = "nothing that was tried does better than the settings as they are"
    elif plain.dev is None:
        said = f"the settings as they are: {plain.state}"
    else:
        gain = float(best.dev or 0) - plain.dev
        said = f"{gain:+.4f} on dev over the settings as they are"
        if plain.stderr and gain < 2 * plain.stderr:
            said += ", less than two standard errors: it may be chance"
    for item in at_an_edge(found):
        said += f"; {item.key} is best at an end of {item}: widen it"
    return (
        f"{found.method}, {len(found.tried)} trials on {found.rows} dev rows, seeds "
        f"{', '.join(map(str, found.seeds))}:\n{table}\n{said}. The best of many flatters itself "
        "on dev: judge it on test, with other seeds."
    )


def trial_line(tried: Tried) -> str:
    """A trial in one line."""
    values = " ".join(f"{key}={_short(value)}" for key, value in tried.values.items())
    outcome = f"dev {tried.dev:.4f}" if tried.dev is not None else tried.state
    return f"trial {tried.number}: {values}{'' if tried.number else ' (as it is)'}: {outcome}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
