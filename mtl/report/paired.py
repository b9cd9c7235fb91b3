"""Is a composition better than the own adapter? Over seeds and test examples together.

Run i of one side answers the same test rows as run i of the other (one seed). Let d_i be the gain
of pair i (n of them) on all rows, s their standard deviation, g_ir the gain of pair i on the sample
r of the test rows (:mod:`mtl.report.resampling`), ḡ_r its mean over the pairs. Then

    SE² = s²/n + var_r ḡ_r − u/n,    u = n/(n−1) · mean_i var_r (g_ir − ḡ_r)

at least the larger of the first two. s²/n is what other seeds would have changed, var_r ḡ_r what
other rows would have; what single runs answer differently on single rows is in both, and u/n takes
it out once. (Resampling pairs and rows together and taking the spread of that, which is usual,
counts it three times: Owen 2007, the pigeonhole bootstrap.) The part of the seeds is known from n
values only, so the interval is d̄ ± t·SE, and p that of d̄/SE, with Satterthwaite's
SE⁴·(n−1)/(s²/n)² degrees of freedom, n−1 at least.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.errors import ZooError
from mtl.report.resampling import DRAWS, LEVEL, resampled_gains
from mtl.report.stats import t_above, t_beyond
from mtl.report.tables import adapters_of, by_group, own_adapters
from mtl.report.verdicts import holm
from mtl.zoo.settings import differing, reading_of, settings_of, settings_text

if TYPE_CHECKING:
    from mtl.zoo import Entry


@dataclass(frozen=True)
class Mixed:
    """A mean difference over pairs of runs.

    Attributes:
        gain: over all rows and pairs; low, high, p: see the module, None of one pair, or of pairs
            and rows that are all alike.
        effect: Hedges' g of paired differences, mean/sd · (1 − 3/(4(n−1) − 1)), None where the
            pairs do not spread.
        superiority: share of all n·n pairs of runs in which the second side is above, ties half.
        n: pairs.
    """

    gain: float
    low: float | None
    high: float | None
    p: float | None
    effect: float | None
    superiority: float
    n: int


def mixed(
    own: Sequence[float],
    other: Sequence[float],
    gains: np.ndarray,
    level: float = LEVEL,
) -> Mixed:
    """Compare two sides run by run, see the module.

    Args:
        own, other: the metric of each side, pair by pair.
        gains: (n,S) differences other − own over S samples of the test rows.
    """
    first, second = np.asarray(own, float), np.asarray(other, float)
    apart = second - first
    n = len(gains)
    above = second[None, :] - first[:, None]
    superiority = float(((above > 0) + 0.5 * (above == 0)).mean())
    if n < 2:
        return Mixed(float(apart.mean()), None, None, None, None, superiority, n)
    gain, spread = float(apart.mean()), float(apart.std(ddof=1))
    effect = gain / spread * (1 - 3 / (4 * (n - 1) - 1)) if spread > 1e-12 else None
    centre = gains.mean(axis=0)
    seeds, rows = spread**2 / n, float(centre.var(ddof=1))
    both = float((gains - centre).var(axis=1, ddof=1).mean()) / (n - 1)
    error = float(np.sqrt(max(seeds + rows - both, seeds, rows)))
    if error <= 1e-12:
        return Mixed(gain, None, None, None, effect, superiority, n)
    df = max(n - 1.0, error**4 * (n - 1) / max(seeds**2, 1e-300))
    half = float(t_above(0.5 - level / 2, df)) * error
    p = float(2 * t_beyond(abs(gain) / error, df))
    return Mixed(gain, gain - half, gain + half, p, effect, superiority, n)


@dataclass(frozen=True)
class Tested:
    """A composition beside its own adapter; ``p_holm`` is corrected over all that are shown."""

    task: str
    label: str
    metric: str
    found: Mixed
    p_holm: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return {**self.__dict__, "found": self.found.__dict__}


def paired_tests(entries: Sequence[Entry], beside: Sequence[Entry] = ()) -> list[Tested]:
    """Every composition of ``entries`` against the own adapters that reports compare it with.

    These are among ``entries`` and ``beside`` (:func:`mtl.report.tables.compared_with`).

    Left out are those without a seed in common, and metrics over groups of rows.
    """
    groups = by_group(
        entry
        for entry in [*entries, *beside]
        if entry.manifest.kind != "joint" and not entry.manifest.control
    )
    composed = [found for found in groups.values() if found[0].manifest.kind == "composition"]
    adapters = adapters_of(groups)
    tested = []
    for found, label in zip(composed, _labels(composed), strict=True):
        one = _tested(label, found, own_adapters(found[0], adapters))
        tested += [one] if one else []
    known = [item.found.p for item in tested if item.found.p is not None]
    corrected = iter(holm(known))
    tested = [
        replace(item, p_holm=None if item.found.p is None else next(corrected)) for item in tested
    ]
    return sorted(tested, key=lambda item: (item.task, item.label))


def _labels(groups: Sequence[Sequence[Entry]]) -> list[str]:
    """How the rows are called: method, number of sources, and in what those of one name differ."""
    manifests = [group[0].manifest for group in groups]
    names = [f"{m.method} (K={len(m.parents)})" for m in manifests]
    alike = [(m.task["id"], name) for m, name in zip(manifests, names, strict=True)]
    settings = [
        {
            **reading_of(m),
            **settings_of(m),
            "train rows": m.data["sizes"].get("train"),
            "sources": ", ".join(parent["ref"].rpartition("-")[2] for parent in m.parents),
        }
        for m in manifests
    ]
    apart = differing(alike, settings)
    return [f"{name} {settings_text(own)}".rstrip() for name, own in zip(names, apart, strict=True)]


def _tested(label: str, composed: Sequence[Entry], own: Sequence[Entry]) -> Tested | None:
    sides = [{entry.manifest.seed: entry for entry in side} for side in (own, composed)]
    seeds = sorted(seed for seed in sides[0].keys() & sides[1].keys())
    values = [[_value(side[seed]) for seed in seeds] for side in sides]
    kept = [n for n in range(len(seeds)) if values[0][n] is not None and values[1][n] is not None]
    if not kept:
        return None
    manifest = composed[0].manifest
    metric = str(manifest.task["headline"])
    pairs = [(sides[0][seeds[n]], sides[1][seeds[n]]) for n in kept]
    try:
        gains = resampled_gains(metric, [pair[0] for pair in pairs], [pair[1] for pair in pairs])
    except ZooError:
        return None
    if gains is None:
        return None
    first, second = ([float(side[n] or 0.0) for n in kept] for side in values)
    return Tested(manifest.task["id"], label, metric, mixed(first, second, gains))


def _value(entry: Entry) -> float | None:
    item = entry.manifest.headline()
    return None if item is None or item["value"] is None else float(item["value"])


def render_tests(tested: Sequence[Tested]) -> str:
    """The tests as plain text."""
    from tabulate import tabulate

    def p_text(value: float | None) -> str:
        return "<0.001" if value is not None and value < 0.001 else number(value, ".3f")

    def number(value: float | None, form: str) -> str:
        return "–" if value is None else format(value, form)

    lines = [
        [
            item.task,
            item.label,
            item.metric,
            f"{item.found.gain:+.4f}",
            "–" if item.found.low is None else f"[{item.found.low:+.4f}, {item.found.high:+.4f}]",
            p_text(item.found.p),
            p_text(item.p_holm),
            number(item.found.effect, "+.2f"),
            f"{item.found.superiority:.2f}",
            item.found.n,
        ]
        for item in tested
    ]
    head = ["task", "composition", "metric", "gain over own adapter", "95 %", "p", "p, Holm"]
    head += ["effect", "superiority", "pairs"]
    return (
        f"{tabulate(lines, headers=head, disable_numparse=True)}\n\n"
        f"95 % and p: over seeds and test examples together ({DRAWS:,} samples of those); Holm: "
        "over the rows shown;\neffect: mean / standard deviation of the gains over seeds (Hedges); "
        "superiority: share of all pairs of runs\nin which the composition is above"
    )
