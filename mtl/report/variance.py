"""Where does the spread of a result come from? Seeds of both stages, few-shot draws, test rows.

Runs of one task, method and settings differ in up to three factors: the seed of their sources
(stage one), their own seed (stage two), and which few rows they were trained on. With y the metric
on test of a run,

    y = μ + a(stage one) + b(stage two) + c(draw) + rest

each a random effect with a variance of its own, estimated together by restricted maximum likelihood
(REML), which is the analysis of variance where every combination was run once. The rest is what
these do in combination. Test rows are the same for all runs, so they are no part of how y spreads;
how much of them is in every y, which other test rows would have changed, is the variance over
samples of the rows that all n runs have in common:

    var_r ȳ_r − u/n,    u = n/(n−1) · mean_i var_r (y_ir − ȳ_r)      (:mod:`mtl.report.paired`)

A variance of few levels is hardly known: its interval has levels − 1 degrees of freedom. With MS =
k·σ² + rest, k runs a level, it is ((levels − 1)·MS/χ² − rest)/k, from 0 on (exact where every
combination was run once and the rest is known).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.errors import RequestError, ZooError
from mtl.files import canonical_json
from mtl.report.controls import scores_by_seed
from mtl.report.resampling import DRAWS, resampled_scores
from mtl.report.stats import LEVEL
from mtl.report.tables_text import method_name
from mtl.words import printable
from mtl.zoo.merged import once
from mtl.zoo.settings import differing, method_settings_of, reading_of, settings_of, settings_text

if TYPE_CHECKING:
    from mtl.zoo import Entry

ONE, TWO, SHOTS = "stage-one seed", "stage-two seed", "few-shot draw"
REST, ROWS = "rest", "test rows"
_DRAW = "shot_draw"
_RATIOS = (-14.0, 18.0)
"""Logarithms between which the ratio of a variance to the rest's is looked for."""


@dataclass(frozen=True)
class Part:
    """One part of the variance.

    Attributes:
        name: a factor, factors that always changed together, ``rest`` or ``test rows``.
        levels: how many of it there are: seeds, draws, rows.
        variance: in squared units of the metric.
        low, high: 95 % interval of the standard deviation, None where there is none.
        share: of all parts.
    """

    name: str
    levels: int
    variance: float
    low: float | None = None
    high: float | None = None
    share: float = 0.0

    @property
    def std(self) -> float:
        """In units of the metric."""
        return sqrt(self.variance)


@dataclass(frozen=True)
class Split:
    """The parts of the variance of a result; ``whole`` where every combination was run once."""

    task: str
    label: str
    metric: str
    mean: float
    runs: int
    whole: bool
    parts: tuple[Part, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        parts = [{**part.__dict__, "std": part.std} for part in self.parts]
        return {**self.__dict__, "parts": parts}


def components(
    values: Sequence[float], factors: Mapping[str, Sequence[Hashable]]
) -> tuple[dict[str, float], float]:
    """Variances of crossed random effects, and of the rest: REML.

    With V = I + Σ_f γ_f Z_f Z_fᵀ, γ_f the ratio of the variance of factor f to the rest's and Z_f
    (runs, levels) what says which run has which level, and r what generalised least squares leave
    of the values around their mean, the least of (n−1)·log rᵀV⁻¹r + log |V| + log 1ᵀV⁻¹1.

    Args:
        values: one per run.
        factors: name → the level of every run; two levels at least.

    Raises:
        RequestError: factors that cannot be told apart.
    """
    from scipy.optimize import minimize

    data = np.asarray(values, dtype=np.float64)
    sides = [_dummies(levels) for levels in factors.values()]
    n, free = len(data), 1 + sum(side.shape[1] - 1 for side in sides)
    every = np.hstack([np.ones((n, 1)), *sides])
    if np.linalg.matrix_rank(every) < free or free >= n:
        raise RequestError(f"{' and '.join(factors)} cannot be told apart in {n} runs")
    spread = float(data.std())
    if spread <= 1e-12:
        return dict.fromkeys(factors, 0.0), 0.0
    both = np.stack([np.ones(n), (data - data.mean()) / spread], axis=1)
    z = every[:, 1:]
    inner, outer, plain = z.T @ z, z.T @ both, both.T @ both
    sizes = [side.shape[1] for side in sides]

    def fit(logs: np.ndarray) -> tuple[float, float]:
        """What is to be least at these logarithms of the ratios, and the variance of the rest."""
        root = np.exp(np.repeat(logs, sizes) / 2)  # by Woodbury's identity, in levels, not in runs
        middle = np.eye(len(root)) + root[:, None] * inner * root
        w = root[:, None] * outer
        forms = plain - w.T @ np.linalg.solve(middle, w)  # of [1, y], with the inverse of V
        rest = max(float(forms[1, 1] - forms[0, 1] ** 2 / forms[0, 0]) / (n - 1), 1e-300)
        volume = np.linalg.slogdet(middle)[1] + np.log(forms[0, 0])
        return float((n - 1) * np.log(rest) + volume), rest

    bounds = [_RATIOS] * len(sides)
    fits = [
        minimize(lambda logs: fit(logs)[0], [start] * len(sides), method="L-BFGS-B", bounds=bounds)
        for start in (-4.0, 0.0, 4.0)
    ]
    best = min(fits, key=lambda found: float(found.fun)).x
    rest = fit(best)[1] * spread**2
    ratios = np.where(best < _RATIOS[0] + 1, 0.0, np.exp(best))
    return dict(zip(factors, (float(ratio) * rest for ratio in ratios), strict=True)), rest


def _dummies(levels: Sequence[Hashable]) -> np.ndarray:
    known = list(dict.fromkeys(levels))
    found = np.zeros((len(levels), len(known)))
    found[range(len(levels)), [known.index(level) for level in levels]] = 1.0
    return found


def split(
    values: Sequence[float], factors: Mapping[str, Sequence[Hashable]], samples: np.ndarray
) -> tuple[list[Part], bool]:
    """The parts of the variance of runs, and whether every combination was run once.

    Factors with one level have no part. Those that always changed together are one, called by both
    names; where nothing is left to tell them from the rest, that is said in the name, too.

    Args:
        values: metric per run.
        factors: name → the level of every run.
        samples: (runs,S) metric over samples of the test rows; or (runs,0).

    Raises:
        RequestError: nothing differs; otherwise as :func:`components`.
    """
    varied = _together(factors)
    n = len(values)
    if n < 2 or not varied:
        raise RequestError("one run, or runs that differ in nothing")
    count = {name: len(set(levels)) for name, levels in varied.items()}
    combined = len(set(zip(*varied.values(), strict=True)))
    whole = n == combined == int(np.prod(list(count.values())))
    if len(varied) == 1 and combined == n:  # one run a level: all of the spread is in it
        ((name, levels),) = count.items()
        variance = float(np.var(values, ddof=1))
        parts = [_bounded(f"{name}, with the {REST}", levels, variance, 0.0, 1.0)]
    else:
        sizes, rest = components(values, varied)
        parts = [
            _bounded(name, count[name], variance, rest, n / count[name])
            for name, variance in sizes.items()
        ]
        left = n - 1 - sum(levels - 1 for levels in count.values())
        parts.append(_bounded(REST, left + 1, rest, 0.0, 1.0))
    if samples.shape[1]:
        parts.append(Part(ROWS, 0, common(samples)))
    total = sum(part.variance for part in parts)
    shares = [part.variance / total if total > 0 else 0.0 for part in parts]
    return [
        Part(part.name, part.levels, part.variance, part.low, part.high, share)
        for part, share in zip(parts, shares, strict=True)
    ], whole


def common(samples: np.ndarray) -> float:
    """What other test rows would change in all runs (runs,S) alike: a variance, at least 0."""
    n, centre = len(samples), samples.mean(axis=0)
    all_of_it = float(centre.var(ddof=1))
    if n < 2:
        return all_of_it
    single = float((samples - centre).var(axis=1, ddof=1).mean()) / (n - 1)
    return max(all_of_it - single, 0.0)


def _together(factors: Mapping[str, Sequence[Hashable]]) -> dict[str, Sequence[Hashable]]:
    """Factors with more than one level; those with the same partition of the runs are one."""
    found: dict[tuple[int, ...], list[str]] = {}
    for name, levels in factors.items():
        known = list(dict.fromkeys(levels))
        if len(known) > 1:
            found.setdefault(tuple(known.index(level) for level in levels), []).append(name)
    return {" and ".join(names): places for places, names in found.items()}


def _bounded(name: str, levels: int, variance: float, rest: float, runs: float) -> Part:
    """A part with the interval of its standard deviation, see the module."""
    from scipy.special import chdtri

    df = levels - 1
    if df < 1:
        return Part(name, levels, variance)
    mass = df * (runs * variance + rest)
    tail = (1 - LEVEL) / 2
    ends = [max(mass / chdtri(df, p) - rest, 0.0) / runs for p in (tail, 1 - tail)]
    return Part(name, levels, variance, sqrt(ends[0]), sqrt(ends[1]))


def variance_splits(entries: Sequence[Entry]) -> tuple[list[Split], list[str]]:
    """The split of every task, method and settings with several runs, and what has none and why.

    Joint models and controls are left out.
    """
    groups: dict[tuple[Any, ...], list[Entry]] = {}
    for entry in once(entries):
        if entry.manifest.kind != "joint" and not entry.manifest.control:
            groups.setdefault(_group(entry), []).append(entry)
    several = [group for group in groups.values() if len(group) > 1]
    labels = _labels(several)
    found, notes = [], []
    for group, label in zip(several, labels, strict=True):
        task = group[0].manifest.task["id"]
        try:
            found.append(_split(group, label))
        except (RequestError, ZooError) as error:
            notes.append(f"{task}, {label}: {error}")
    return sorted(found, key=lambda item: (item.task, item.label)), notes


def _group(entry: Entry) -> tuple[Any, ...]:
    """What runs have in common that differ in seeds and draws alone."""
    manifest = entry.manifest
    data = manifest.data
    settings = {key: value for key, value in manifest.run_settings.items() if key != _DRAW}
    return (
        manifest.task["id"],
        manifest.base["fingerprint"],
        manifest.kind,
        manifest.method,
        canonical_json([method_settings_of(manifest), settings, reading_of(manifest)]),
        tuple((parent["task"], parent["method"]) for parent in manifest.parents),
        (data["protocol"], data["sizes"].get("train")),
        data.get("splits", {}).get("test") or data["fingerprint"],
    )


def _labels(groups: Sequence[Sequence[Entry]]) -> list[str]:
    manifests = [group[0].manifest for group in groups]
    names = [method_name(m.method, len(m.parents)) for m in manifests]
    settings = [
        {
            **reading_of(m),
            **{k: value for k, value in settings_of(m).items() if k not in (_DRAW, "grouping")},
            "train rows": m.data["sizes"].get("train"),
            "sources": ", ".join(parent["task"] for parent in m.parents),
        }
        for m in manifests
    ]
    alike = [(m.task["id"], name) for m, name in zip(manifests, names, strict=True)]
    apart = differing(alike, settings)
    return [
        printable(f"{name} {settings_text(own)}".rstrip())
        for name, own in zip(names, apart, strict=True)
    ]


def _split(group: Sequence[Entry], label: str) -> Split:
    """The split of runs that differ in seeds and draws alone."""
    runs = [entry for entry in group if scores_by_seed([entry])]
    if not runs:
        raise RequestError("no score on test")
    manifest = runs[0].manifest
    metric = str(manifest.task["headline"])
    values = [value for entry in runs for value in scores_by_seed([entry]).values()]
    factors: dict[str, Sequence[Hashable]] = {
        ONE: [_sources(entry) for entry in runs],
        TWO: [entry.manifest.seed for entry in runs],
        SHOTS: [_draw(entry) for entry in runs],
    }
    if not manifest.parents:
        factors = {"seed": factors[TWO], SHOTS: factors[SHOTS]}
    samples = resampled_scores(metric, runs)
    parts, whole = split(values, factors, np.zeros((0, 0)) if samples is None else samples)
    mean = sum(values) / len(values)
    return Split(manifest.task["id"], label, metric, mean, len(runs), whole, tuple(parts))


def _sources(entry: Entry) -> tuple[int, ...]:
    """The seeds of the sources, in the order of the parents."""
    return tuple(int(parent["seed"]) for parent in entry.manifest.parents)


def _draw(entry: Entry) -> str:
    """The rows that it was trained on."""
    data = entry.manifest.data
    return str(data.get("splits", {}).get("train") or data["fingerprint"])


def render_splits(found: Sequence[Split], notes: Sequence[str]) -> str:
    """The splits as plain text."""
    from tabulate import tabulate

    lines = []
    for item in found:
        for part in item.parts:
            bounds = "–"
            if part.low is not None and part.high is not None:
                bounds = f"[{part.low:.4f}, {part.high:.4f}]"
            first = part is item.parts[0]
            lines.append(
                [
                    item.task if first else "",
                    item.label if first else "",
                    f"{item.mean:.4f}" if first else "",
                    item.runs if first else "",
                    part.name,
                    part.levels or "",
                    f"{part.std:.4f}",
                    bounds,
                    f"{part.share:.0%}",
                ]
            )
    head = ["task", "method", "mean", "runs", "spread from", "levels", "std", "95 %", "share"]
    partly = [item for item in found if not item.whole]
    said = [
        f"std: standard deviation in units of the metric, REML; rest: combinations; {ROWS}: what "
        f"other test rows would change in all runs alike ({DRAWS:,} samples of them)"
    ]
    if partly:
        names = ", ".join(f"{item.task}, {item.label}" for item in partly)
        said.append(f"not every combination was run, or one more than once: {names}")
    text = tabulate(lines, headers=head, disable_numparse=True)
    return "\n".join([text, "", *said, *(f"left out: {note}" for note in notes)])
