"""How far may a score be trusted here? Every score against measured transfer.

Per target with at least three sources that were both measured and scored (same base, same training
rows):

- rank correlation: Spearman's rho between score and measured transfer;
- regret@k: the best measured transfer of all sources minus the best among the k that the score puts
  first, in the unit of the metric; ``random`` is its expectation for k sources drawn blindly.

Measured transfer is that on the dev split by default, because ``--sources auto`` goes by the
calibration; ``test`` is for reports.

Means are over targets; intervals are 95 % percentile bootstraps over targets, or, with fewer than
three of them, over each target's sources.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field, StrictInt, StrictStr
from pydantic.dataclasses import dataclass

from mtl.errors import RequestError, ZooError
from mtl.files import read_json, write_json
from mtl.graph.model import choice_value
from mtl.typed import graph_places
from mtl.zoo.models import List, Table, check
from mtl.zoo.names import show

if TYPE_CHECKING:
    import networkx as nx

SCHEMA_VERSION = 1
LEAST_SOURCES = 3
DRAWS = 2000
KS = (1, 3)

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Interval = tuple[Number, Number | None, Number | None]
"""(mean, low, high); without an interval its ends are None."""

Pair = tuple[float, float]
"""(score, measured transfer) of one source."""


@dataclass(frozen=True)
class Trust:
    """What a score's ranking was worth.

    Attributes:
        score: its name.
        targets, pairs: what it was compared on.
        rho: mean Spearman correlation over targets; low, high: its interval.
        regret: k → (mean, low, high), in the metric's unit.
        slope, intercept: of the least-squares line from the score, standardised per target, to the
            measured transfer; ``residual`` is what it leaves, as a standard deviation.
        over: what the bootstrap resampled, ``targets`` or ``sources``.
    """

    score: StrictStr
    targets: StrictInt
    pairs: StrictInt
    rho: Number
    low: Number | None
    high: Number | None
    regret: Table[Interval]
    slope: Number
    intercept: Number
    residual: Number
    over: StrictStr

    def __post_init__(self) -> None:
        for _, low, high in ((0, self.low, self.high), *self.regret.values()):
            if (low is None) != (high is None):
                raise ValueError("an interval has two ends, or none")

    @property
    def trusted(self) -> bool:
        """Whether the rank correlation is above zero beyond doubt."""
        return self.low is not None and self.low > 0

    @property
    def verdict(self) -> str:
        """``trusted``, ``misleads`` (ranks the wrong way round beyond doubt), or ``in doubt``."""
        if self.trusted:
            return "trusted"
        return "misleads" if self.high is not None and self.high < 0 else "in doubt"


@dataclass(frozen=True)
class Calibration:
    """Every score's :class:`Trust` on one base.

    Attributes:
        base: fingerprint.
        method: the composition whose measured transfer it was compared with.
        scores: by name, best first.
        random: k → mean regret of a blind choice.
        skipped: score → why it has no place here.
        targets: ids of the targets compared on.
        split: on which transfer was measured.
    """

    base: StrictStr
    method: StrictStr
    scores: Table[Trust]
    random: Table[Number]
    skipped: Table[StrictStr]
    targets: List[StrictStr]
    split: StrictStr = "dev"

    def best(self) -> Trust | None:
        """The score with the highest rank correlation, if any is above zero."""
        found = [trust for trust in self.scores.values() if trust.rho > 0]
        return max(found, key=lambda trust: trust.rho, default=None)

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA_VERSION,
            **asdict(self),
            "scores": {
                name: {**asdict(t), "trusted": t.trusted, "verdict": t.verdict}
                for name, t in self.scores.items()
            },
        }


def calibrate(
    graph: nx.DiGraph,
    base: str,
    *,
    method: str | None = None,
    split: str = "dev",
    draws: int = DRAWS,
    seed: int = 0,
) -> Calibration:
    """Compare every score in ``graph`` with the measured transfer on ``base``.

    Args:
        base: fingerprint; evidence of other bases is not looked at.
        method: the composition whose transfer counts; None for the one that was measured most.
        split: ``dev``, or ``test`` for reports.

    Raises:
        RequestError: nothing was measured, or no target has three sources with both; says what to
            run.
    """
    measured, scored = _collect(graph, base, split)
    if not measured:
        raise RequestError(
            f"Nothing to calibrate with: no transfer was measured on {split}, on base {base[:8]}. "
            f"Run first 'python -m mtl.graph measure --targets TASK{graph_places()}', for several "
            "targets."
        )
    counts = Counter(how for how, *_ in measured)
    if method is not None and method not in counts:
        raise RequestError(
            f"No transfer was measured with {method!r}; there is {', '.join(sorted(counts))}."
        )
    chosen = method or max(sorted(counts), key=lambda how: counts[how])
    truth = {key[1:]: value for key, value in measured.items() if key[0] == chosen}
    found: dict[str, Trust] = {}
    skipped: dict[str, str] = {}
    used: set[str] = set()
    for score in sorted({name for name, *_ in scored}):
        by_target: dict[tuple[str, str], list[Pair]] = {}
        for (name, target, rows, source), value in scored.items():
            if name == score and (target, rows, source) in truth:
                by_target.setdefault((target, rows), []).append(
                    (value, truth[target, rows, source])
                )
        fitting = {k: pairs for k, pairs in by_target.items() if len(pairs) >= LEAST_SOURCES}
        if not fitting:
            most = max((len(pairs) for pairs in by_target.values()), default=0)
            skipped[score] = (
                f"no target has {LEAST_SOURCES} sources both measured and scored (at most {most})"
            )
            continue
        used |= {target for target, _ in fitting}
        found[score] = _trust(score, [fitting[key] for key in sorted(fitting)], draws, seed)
    if not found:
        raise RequestError(
            f"Nothing to calibrate: of {len(truth)} measured edges on base {base[:8]}, no target "
            f"has {LEAST_SOURCES} sources with a score on the same rows. Run "
            f"'python -m mtl.graph suggest --target TASK{graph_places()}' for each measured target."
        )
    by_rows: dict[tuple[str, str], list[float]] = {}
    for (target, rows, _), value in truth.items():
        by_rows.setdefault((target, rows), []).append(value)
    blind = [values for values in by_rows.values() if len(values) >= LEAST_SOURCES]
    return Calibration(
        base=base,
        method=chosen,
        scores=dict(sorted(found.items(), key=lambda item: (-item[1].rho, item[0]))),
        random={str(k): float(np.mean([random_regret(v, k) for v in blind])) for k in KS},
        skipped=skipped,
        targets=sorted(used),
        split=split,
    )


def rank_correlation(pairs: Sequence[Pair]) -> float:
    """Spearman's rho; 0 where one side does not vary (nothing can be ranked)."""
    from scipy.stats import rankdata

    scores, truth = (rankdata(side) for side in zip(*pairs, strict=True))
    if np.ptp(scores) == 0 or np.ptp(truth) == 0:
        return 0.0
    return float(np.corrcoef(scores, truth)[0, 1])


def regret(pairs: Sequence[Pair], k: int) -> float:
    """max of the measured transfer minus max among the k sources with the highest score.

    Of equal scores at the border, each could be taken: then the mean over them.
    """
    scores = np.array([pair[0] for pair in pairs])
    truth = np.array([pair[1] for pair in pairs])
    k = min(k, len(pairs))
    border = np.sort(scores)[::-1][k - 1]
    sure = truth[scores > border]
    open_places, tied = k - len(sure), truth[scores == border]
    found = _expected_best(tied, open_places, float(sure.max()) if len(sure) else -math.inf)
    return float(truth.max() - found)


def random_regret(truth: Sequence[float], k: int) -> float:
    """The regret@k that a blind choice of k sources has on average."""
    values = np.asarray(truth, dtype=np.float64)
    return float(values.max() - _expected_best(values, min(k, len(values)), -math.inf))


def _expected_best(values: np.ndarray, k: int, least: float) -> float:
    """Mean over all k-subsets of ``max(subset ∪ {least})``."""
    ordered = np.sort(values)
    ways = math.comb(len(ordered), k)
    # the i-th smallest is the largest of C(i, k−1) subsets
    return sum(
        math.comb(index, k - 1) / ways * max(float(value), least)
        for index, value in enumerate(ordered)
    )


def _trust(score: str, targets: Sequence[Sequence[Pair]], draws: int, seed: int) -> Trust:
    rng = np.random.default_rng(seed)
    over = "targets" if len(targets) >= 3 else "sources"

    def resampled() -> list[Sequence[Pair]]:
        if over == "targets":
            return [targets[i] for i in rng.integers(0, len(targets), len(targets))]
        return [[t[i] for i in rng.integers(0, len(t), len(t))] for t in targets]

    samples = [resampled() for _ in range(draws)]

    def spread(statistic: Callable[[Sequence[Pair]], float]) -> tuple[float, float, float]:
        value = float(np.mean([statistic(target) for target in targets]))
        if over == "targets":  # the same targets again and again: compute each once
            known = {id(target): statistic(target) for target in targets}
            found = [np.mean([known[id(target)] for target in sample]) for sample in samples]
        else:
            found = [np.mean([statistic(target) for target in sample]) for sample in samples]
        low, high = np.percentile(found, [2.5, 97.5])
        return value, float(low), float(high)

    rho, low, high = spread(rank_correlation)
    slope, intercept, residual = _line(targets)
    return Trust(
        score=score,
        targets=len(targets),
        pairs=sum(map(len, targets)),
        rho=rho,
        low=low,
        high=high,
        regret={str(k): spread(lambda pairs, k=k: regret(pairs, k)) for k in KS},  # type: ignore[misc]
        slope=slope,
        intercept=intercept,
        residual=residual,
        over=over,
    )


def standardised(values: Sequence[float]) -> np.ndarray:
    """Values minus their mean, over their standard deviation; zeros where they are all equal."""
    array = np.asarray(values, dtype=np.float64)
    deviation = array.std()
    return (array - array.mean()) / deviation if deviation > 0 else np.zeros_like(array)


def _line(targets: Sequence[Sequence[Pair]]) -> tuple[float, float, float]:
    x = np.concatenate([standardised([pair[0] for pair in target]) for target in targets])
    y = np.array([pair[1] for target in targets for pair in target])
    slope = float((x * (y - y.mean())).sum() / max((x * x).sum(), np.finfo(float).tiny))
    intercept = float(y.mean() - slope * x.mean())
    left = y - intercept - slope * x
    return slope, intercept, float(np.sqrt((left**2).sum() / max(len(y) - 2, 1)))


def _collect(
    graph: nx.DiGraph, base: str, split: str
) -> tuple[dict[tuple[str, str, str, str], float], dict[tuple[str, str, str, str], float]]:
    """(method, target, rows, source) → measured, and (score, target, rows, source) → score."""
    found: dict[str, dict[tuple[str, str, str, str], float]] = {"measured": {}, "predicted": {}}
    for source, target, data in graph.edges(data=True):
        if source == target:
            continue
        # of runs with other settings, the one over most seeds, then the latest, comes last
        for item in sorted(data["evidence"], key=lambda i: (len(i["seeds"]), i["created"])):
            if item["base"] == base and item["kind"] in found:
                value = choice_value(item) if split == "dev" else item["value"]
                if value is not None:
                    found[item["kind"]][item["method"], target, item["rows"], source] = value
    return found["measured"], found["predicted"]


def calibration_file(folder: Path, base: str, split: str = "dev") -> Path:
    """Where the calibration of a base on a split lies."""
    return folder / f"calibration-{split}-{base[:16]}.json"


def write_calibration(folder: Path, found: Calibration) -> Path:
    """Keep a calibration; ``suggest`` and ``auto`` read the one on dev. Raises RunError."""
    path = calibration_file(folder, found.base, found.split)
    write_json(path, found.to_dict())
    return path


def read_calibration(folder: Path, base: str) -> Calibration | None:
    """The calibration of ``base`` on dev, or None where nobody calibrated.

    Raises:
        ZooError: the file is damaged.
    """
    path = calibration_file(folder, base)
    if not path.is_file():
        return None
    stored = read_json(path)
    try:
        found: Calibration = check(Calibration, stored, "it")
        for key, wanted in (("schema_version", SCHEMA_VERSION), ("base", base), ("split", "dev")):
            if repr(stored.get(key)) != repr(wanted):
                raise ZooError(f"its {key} is {show(stored.get(key))}, not {show(wanted)}.")
        for ks in ([*found.random], *([*trust.regret] for trust in found.scores.values())):
            if set(ks) != set(map(str, KS)):
                raise ZooError(f"its regrets are of {show(sorted(ks))}, not of {KS}.")
        if wrong := [name for name, trust in found.scores.items() if trust.score != name]:
            raise ZooError(f"it.scores[{show(wrong[0])}] is of another score.")
        return found
    except ZooError as error:
        raise ZooError(
            f"{path} is damaged: {error} Remove it and run 'python -m mtl.graph "
            f"calibrate{graph_places()}'."
        ) from error


def expected_gains(values: Mapping[str, float], trust: Trust) -> dict[str, float]:
    """Source → the transfer that the calibration expects for these scores of one target."""
    names = list(values)
    ready = standardised([values[name] for name in names])
    return {
        name: trust.intercept + trust.slope * float(z) for name, z in zip(names, ready, strict=True)
    }


def trust_text(trust: Trust | None) -> str:
    """How far a score may be trusted, in one phrase."""
    if trust is None:
        return "not calibrated here"
    span = "" if trust.low is None else f" [{trust.low:+.2f}, {trust.high:+.2f}]"
    first = trust.regret["1"][0]
    return (
        f"{trust.verdict}: rank correlation {trust.rho:+.2f}{span} with measured transfer, "
        f"regret@1 {first:.4f} ({trust.pairs} pairs, {trust.targets} targets)"
    )
