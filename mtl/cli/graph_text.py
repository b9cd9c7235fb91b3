"""Tables of ``mtl.graph``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtl.typed import graph_places
from mtl.words import printable

if TYPE_CHECKING:
    from mtl.compose.attribution import Attribution
    from mtl.compose.shapley import Shapley
    from mtl.compose.suggest import Suggestion
    from mtl.graph.calibrate import Calibration
    from mtl.zoo import Entry


def suggestion_text(found: Suggestion, calibration: Calibration | None, typed: str) -> str:
    """Sources by scores; how far each score may be trusted; what was skipped, and why.

    ``typed`` is how a command line names the target.
    """
    from tabulate import tabulate

    from mtl.graph.calibrate import trust_text
    from mtl.graph.scores import SCORES
    from mtl.graph.select import trusted_score

    scores = [
        name for name in SCORES.names() if any(name in values for values in found.values.values())
    ]
    ranks = {score: found.ranked(score) for score in scores}
    by = next((n for n in (trusted_score(calibration)[0], *scores) if n in scores), None)
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
    if found.self_test is not None:
        parts.append(found.self_test.text())
    known = calibration.scores if calibration else {}
    if any(score in known for score in scores):
        parts += [f"trust: {score}: {trust_text(known.get(score))}" for score in scores]
    elif scores:
        parts.append(
            "trust: not calibrated here; how far, is said by "
            f"'python -m mtl.graph measure --targets {typed} --scores all{graph_places()}' and "
            f"then 'python -m mtl.graph calibrate{graph_places()}'"
        )
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


def calibration_text(found: Calibration) -> str:
    """One row per score, best first, and a blind choice to compare with."""
    from tabulate import tabulate

    def span(value: float, low: float | None, high: float | None, form: str) -> str:
        text = format(value, form)
        return text if low is None or high is None else f"{text} [{low:{form}}, {high:{form}}]"

    ks = sorted(found.random, key=int)
    rows = [
        [
            trust.score,
            span(trust.rho, trust.low, trust.high, "+.2f"),
            *(span(*trust.regret[k], ".4f") for k in ks),
            trust.pairs,
            trust.targets,
            trust.verdict,
        ]
        for trust in found.scores.values()
    ]
    rows.append(["(blind choice)", "+0.00", *(f"{found.random[k]:.4f}" for k in ks), "", "", ""])
    headers = [
        "score",
        "rank correlation",
        *(f"regret@{k}" for k in ks),
        "pairs",
        "targets",
        "trust",
    ]
    over = sorted({trust.over for trust in found.scores.values()})
    parts = [
        tabulate(rows, headers=headers, disable_numparse=True),
        f"\nagainst transfer measured on {found.split} ({found.method}), base {found.base[:8]}, "
        f"targets {', '.join(map(printable, found.targets))}; 95 % bootstrap over "
        f"{' and '.join(over)}; trusted: the interval of the rank correlation is above "
        "zero; misleads: below; in doubt: around it",
    ]
    parts += [f"skipped: {name}: {printable(why)}" for name, why in found.skipped.items()]
    if found.split != "dev":
        return "\n".join([*parts, "For a report: --sources auto goes by the calibration on dev."])
    best = found.best()
    parts.append(
        f"--sources auto goes by {best.score}."
        if best
        else "No score ranks better than chance here: --sources auto goes by logme, uncalibrated."
    )
    return "\n".join(parts)


def attribution_text(found: Attribution, entry: Entry) -> str:
    """One row per source, largest contribution first; below, the same layer by layer."""
    import numpy as np
    from tabulate import tabulate

    def cell(shapley: Shapley, number: int) -> str:
        error = "" if shapley.errors is None else f" ± {shapley.errors[number]:.4f}"
        return f"{shapley.values[number]:+.4f}{error}"

    shapley = found.shapley
    names = [printable(parent["task"]) for parent in entry.manifest.parents]
    order = np.argsort(-(found.leave_one_out if shapley is None else shapley.values), kind="stable")
    rows = [
        [
            names[number],
            *([cell(shapley, number)] if shapley else []),
            f"{found.leave_one_out[number]:+.4f}",
        ]
        for number in order
    ]
    headers = ["source", *(["Shapley"] if shapley else []), "left out"]
    how = ""
    if shapley is not None:
        how = "exact" if shapley.exact else "sampled, ± standard error"
        how = f" Shapley values {how}, {shapley.passes} coalitions; they add up to the difference."
    parts = [
        tabulate(rows, headers=headers, disable_numparse=True),
        f"{entry.ref}: {found.metric} {found.whole:.4f} with all sources, {found.empty:.4f} "
        f"with none, on {found.n} rows of {found.split}.{how}",
    ]
    if found.layer_shapley:
        table = [
            [names[number], *(cell(value, number) for value in found.layer_shapley.values())]
            for number in order
        ]
        lost = [found.whole - empty for empty in found.layer_empty.values()]
        table.append(["(all of them)", *(f"{value:+.4f}" for value in lost)])
        parts += ["\nShapley value at one layer, all other layers as trained:"]
        parts += [tabulate(table, headers=["source", *found.layer_shapley], disable_numparse=True)]
    if found.layers:
        table = [
            [names[number], *(f"{values[number]:+.4f}" for values in found.layers.values())]
            for number in order
        ]
        parts += ["\nLeft out of one layer:"]
        parts += [tabulate(table, headers=["source", *found.layers], disable_numparse=True)]
    return "\n".join(parts)
