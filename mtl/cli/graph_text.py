"""Tables of ``mtl.graph``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtl.zoo.names import printable

if TYPE_CHECKING:
    from mtl.compose.suggest import Suggestion


def suggestion_text(found: Suggestion) -> str:
    """One row per source, one column per score; then what was skipped, and why."""
    from tabulate import tabulate

    from mtl.graph.scores import SCORES

    scores = [
        name for name in SCORES.names() if any(name in values for values in found.values.values())
    ]
    ranks = {score: found.ranked(score) for score in scores}
    by = next((name for name in ("logme", *scores) if name in scores), None)
    order = ranks[by] if by else []
    rows = [
        [printable(task), *(_cell(found, ranks, task, score) for score in scores)]
        for task in [*order, *(task for task in found.values if task not in order)]
    ]
    if found.base and rows:
        rows.append(
            [
                "(plain base)",
                *(f"{found.base[s]:.4f}" if s in found.base else "" for s in scores),
            ]
        )
    parts = [
        tabulate(rows, headers=["source", *scores], disable_numparse=True)
        if rows
        else "No candidate could be scored.",
        f"\nTarget {printable(found.target)}, {found.rows} training rows looked at; in brackets "
        f"the rank{f', rows in the order of {by}' if by else ''}. No training run was needed.",
    ]
    for task, reason in found.left_out.items():
        parts.append(f"left out: {printable(task)}: {printable(reason)}")
    # one line per reason: a target without own adapter concerns every source alike
    reasons: dict[tuple[str, str], list[str]] = {}
    for task, skipped in found.skipped.items():
        for score, reason in skipped.items():
            reasons.setdefault((score, reason), []).append(task)
    for (score, reason), tasks in reasons.items():
        whom = "all sources" if len(tasks) == len(found.values) > 1 else ", ".join(tasks)
        parts.append(f"skipped: {score} for {printable(whom)}: {printable(reason)}")
    return "\n".join(parts)


def _cell(found: Suggestion, ranks: dict[str, list[str]], task: str, score: str) -> str:
    value = found.values[task].get(score)
    return "–" if value is None else f"{value:.4f} ({ranks[score].index(task) + 1})"
