"""What to run next: the runs that decide most of a study's comparisons per hour.

The comparisons are those of every two variants (method and settings) on a task. What is known of a
variant's mean on a task after n seeds has the variance

    v(n) = 1 / (1/τ² + n/s²)

with s the spread between seeds and τ that between variants, both of the task where they can be
told, else over all tasks. A comparison with the difference d of the means is undecided by
u = Φ(−|d| / √(v₁ + v₂)), the chance that the better one is the worse one. One more run of a variant
moves its mean by N(0, v(n) − v(n+1)), so it is expected to leave

    E u' = ∫ Φ(−|d + x| / √(v(n+1) + v₂)) N(x; 0, v(n) − v(n+1)) dx

undecided. A run's worth is the sum of u − E u' over its comparisons; greedily the one of most worth
per second is taken, with the sources that it lacks, until the time is used up. Values are those on
dev: what to run is a choice, and no choice looks at test rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, pvariance
from typing import TYPE_CHECKING

from mtl.errors import RequestError

if TYPE_CHECKING:
    import networkx as nx

    from mtl.study.bill import Bill
    from mtl.study.planning import Node, StudyPlan

DECIDED = 0.025
"""A comparison is decided where the chance that it is the other way round is below this."""
_POINTS = [(2 * i + 1) / 32 for i in range(-16, 16)]

Variant = str
Values = Mapping[str, Mapping[Variant, Sequence[float]]]
"""Task → variant → dev values of its seeds; a variant without a run has none."""


@dataclass
class State:
    """What is known of a study's comparisons.

    Attributes:
        values: as they are.
        more: (task, variant) → runs that are counted though nobody has seen them.
    """

    values: Values
    more: dict[tuple[str, Variant], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        pooled = _spreads(self.values.values())
        self._spread = {
            task: _spreads([variants], *pooled) for task, variants in self.values.items()
        }

    def mean(self, task: str, variant: Variant) -> float:
        """Of the seeds; of a variant without a run that of all others on the task."""
        own = self.values[task][variant]
        if own:
            return fmean(own)
        others = [fmean(found) for found in self.values[task].values() if found]
        return fmean(others) if others else 0.0

    def variance(self, task: str, variant: Variant, extra: int = 0) -> float:
        """v(n), with ``extra`` runs more."""
        n = len(self.values[task][variant]) + self.more.get((task, variant), 0) + extra
        seeds, variants = self._spread[task]
        return 1 / (1 / variants + n / seeds)

    def undecided(self, task: str, one: Variant, other: Variant) -> float:
        """u of a comparison."""
        gap = self.mean(task, one) - self.mean(task, other)
        return _tail(abs(gap), self.variance(task, one) + self.variance(task, other))

    def worth(self, task: str, variant: Variant) -> float:
        """What one more run of a variant is expected to decide on a task."""
        before, after = self.variance(task, variant), self.variance(task, variant, 1)
        moves = [math.sqrt(before - after) * point for point in _NORMAL]
        total = 0.0
        for other in self.values[task]:
            if other == variant:
                continue
            gap = self.mean(task, variant) - self.mean(task, other)
            rest = after + self.variance(task, other)
            left = fmean(_tail(abs(gap + move), rest) for move in moves)
            total += self.undecided(task, variant, other) - left
        return total

    def count(self) -> tuple[int, int]:
        """Comparisons that are decided, and all of them."""
        found = [
            self.undecided(task, one, other) < DECIDED
            for task, variants in self.values.items()
            for one in variants
            for other in variants
            if one < other
        ]
        return sum(found), len(found)


def _tail(gap: float, variance: float) -> float:
    """Φ(−gap / √variance)."""
    return 0.5 * math.erfc(gap / math.sqrt(2 * variance))


def _quantiles() -> list[float]:
    from statistics import NormalDist

    normal = NormalDist()
    return [normal.inv_cdf((point + 1) / 2) for point in _POINTS]


_NORMAL = _quantiles()
"""32 points of equal weight of the standard normal distribution."""


def _spreads(
    tasks: Iterable[Mapping[Variant, Sequence[float]]], seeds: float = 1.0, variants: float = 1.0
) -> tuple[float, float]:
    """s² and τ², pooled over ``tasks``; what cannot be told is as given.

    With neither, both are 1: runs are taken to differ between seeds as much as variants do.
    """
    within, freedom, between, groups = 0.0, 0, 0.0, 0
    for found in tasks:
        several = [values for values in found.values() if len(values) > 1]
        within += sum(pvariance(values) * len(values) for values in several)
        freedom += sum(len(values) - 1 for values in several)
        means = [fmean(values) for values in found.values() if values]
        if len(means) > 1:
            between += pvariance(means) * len(means)
            groups += len(means) - 1
    s = within / freedom if freedom and within else seeds
    return s, between / groups if groups and between else max(variants, s)


@dataclass(frozen=True)
class Pick:
    """A run that is worth its time.

    Attributes:
        key: of the run; ``needs``, runs that have to be made for it first.
        seconds: of all of them; ``worth``, what they are expected to decide.
    """

    key: str
    needs: tuple[str, ...]
    seconds: float
    worth: float


def choose(
    state: State,
    runs: Mapping[str, Sequence[tuple[str, Variant]]],
    needs: Mapping[str, Sequence[str]],
    seconds: Mapping[str, float],
    budget: float,
    most: int | None = None,
) -> list[Pick]:
    """Runs for ``budget`` seconds, the best first.

    Args:
        most: how many of them at most.
        runs: what can be run → the (task, variant) pairs that it tells of.
        needs: key → what has to be made first; of it, what is no key of ``runs`` is there.
    """
    left = dict(runs)
    picks: list[Pick] = []
    worth: dict[tuple[str, Variant], float] = {}
    while left and len(picks) != most:
        best: Pick | None = None
        for key in left:
            own = tuple(need for need in needs.get(key, ()) if need in left)
            price = sum(seconds[each] for each in (*own, key))
            if price > budget:
                continue
            told = [pair for each in (*own, key) for pair in left[each]]
            for pair in told:
                if pair not in worth:
                    worth[pair] = state.worth(*pair)
            pick = Pick(key, own, price, sum(worth[pair] for pair in told))
            if best is None or pick.worth * best.seconds > best.worth * pick.seconds:
                best = pick
        if best is None or best.worth <= 0:
            break
        picks.append(best)
        budget -= best.seconds
        changed = set()
        for each in (*best.needs, best.key):
            for pair in left.pop(each):
                state.more[pair] = state.more.get(pair, 0) + 1
                changed.add(pair[0])
        worth = {pair: value for pair, value in worth.items() if pair[0] not in changed}
    return picks


def suggest(
    plan: StudyPlan, bill: Bill, hours: float, say: Callable[[str], object]
) -> tuple[State, list[Pick]]:
    """What of a study to run in ``hours`` of one worker; the state is that before.

    Args:
        say: takes remarks.

    Raises:
        RequestError: nothing tells what a run costs.
    """
    open_runs = {
        key: node for key, node in plan.nodes.items() if node.state not in {"done", "blocked"}
    }
    known = {key: c.seconds for key, c in bill.costs.items() if c.seconds is not None}
    if open_runs and not known:
        raise RequestError(
            "No finished run tells what these cost. Give --probe, which times two steps of each."
        )
    usual = sorted(known.values())[len(known) // 2] if known else 0.0
    unknown = [key for key in open_runs if key not in known]
    if unknown:
        say(
            f"note: of {len(unknown)} runs the time is not known; the median of the others is taken"
        )
    values = values_of(plan)
    told = {key: pairs_of(node, plan) for key, node in open_runs.items()}
    graph = plan.graph()
    needs = {key: _before(graph, key, open_runs) for key in open_runs}
    seconds = {key: max(known.get(key, usual), 1e-3) for key in open_runs}
    picks = choose(State(values), told, needs, seconds, hours * 3600)
    return State(values), picks


def _before(graph: nx.DiGraph, key: str, open_runs: Mapping[str, Node]) -> list[str]:
    """All that has to be made before a run: searches, sources, in their order."""
    import networkx as nx

    before = nx.ancestors(graph, key)
    return [other for other in open_runs if other in before]


def values_of(plan: StudyPlan) -> dict[str, dict[Variant, list[float]]]:
    """Task → variant → its values on dev, of all runs that are there."""
    found: dict[str, dict[Variant, list[float]]] = {}
    for node in plan.nodes.values():
        for task, variant in pairs_of(node, plan):
            found.setdefault(task, {}).setdefault(variant, [])
    for node in plan.nodes.values():
        for (task, variant), value in values_of_run(node, plan):
            found[task][variant].append(value)
    return found


def values_of_run(node: Node, plan: StudyPlan) -> list[tuple[tuple[str, Variant], float]]:
    """(task, variant) → value on dev of a run; of one that is not there nothing."""
    found: list[tuple[tuple[str, Variant], float]] = []
    for entry in plan.desk.workspace.zoo.read([node.entry] if node.entry else []):
        told = entry.manifest.metrics["dev"]
        parts = entry.manifest.task.get("tasks") or [entry.manifest.task]
        for pair, part in zip(pairs_of(node, plan), parts, strict=True):
            name = part["headline"]
            value = told[f"{part['id']}/{name}" if node.cell.kind == "joint" else name]["value"]
            found += [] if value is None else [(pair, float(value))]
    return found


def pairs_of(node: Node, plan: StudyPlan) -> list[tuple[str, Variant]]:
    """The (task, variant) pairs that a run tells of."""
    cell = node.cell
    if cell.search is not None:
        return []
    rows = {k: v for k, v in cell.settings.items() if k in {"shots", "shot_draw"}}
    place = "".join(f" {key}={value}" for key, value in rows.items())
    model = f" {cell.model}" if len({n.cell.model for n in plan.nodes.values()}) > 1 else ""
    said = {k: v for k, v in plan.differing(cell).items() if k not in {*rows, "model"}}
    variant = " ".join([cell.method, *(f"{key}={value}" for key, value in said.items())])
    if cell.kind == "composition":  # entries that differ in their sources
        places = {n.cell.where for n in plan.nodes.values() if n.cell.method == cell.method}
        variant += f" of {cell.where.split(', ')[-1]}" if len(places) > 1 else ""
    return [(f"{task}{place}{model}", variant) for task in cell.ids]
