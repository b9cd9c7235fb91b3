"""``--sources best``: which sources, used how, is best for a target, judged on its dev rows.

A search over sets of sources, compositions and starts, by short runs that get longer for fewer
candidates (successive halving). One trial costs its share of a run of the full length; ``budget``
of such units is not exceeded.

=======  ======  ==================================================================================
stage    length  what is tried
=======  ======  ==================================================================================
single   1/4     each source alone, the own adapter among them; all together
forward  1/4     the best source with each of the others, the best pair with each of the rest, …,
                 as long as dev gets better
used     1/2     the three best sets: as they are (``average``), and by the composition asked for,
                 from its usual start and from another one (every source at 1, or at 1/K)
full     1       the three best of these
=======  ======  ==================================================================================

The best of the last stage is taken; of equals the one with fewer sources. Sets are judged by
``average`` where the recipe knows it (nothing but a head learns: quick, and it says whether the
features help), else by the composition asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mtl.errors import RequestError

BEST = "best"
BUDGET = 12.0
"""Runs of the full length that a search may cost, unless told otherwise."""
SHARES = {"single": 0.25, "forward": 0.25, "used": 0.5, "full": 1.0}
SETS, FINALISTS, LONGEST = 3, 3, 4
"""Sets that are used in earnest, candidates that are trained in full, sources of a grown set."""
PLAIN = "average"


@dataclass(frozen=True)
class Candidate:
    """Sources (ids of their tasks, in the order of the zoo's choice), a composition, a start.

    Attributes:
        start: ``init_scale`` of the ScaLearn family; None for the usual one.
    """

    sources: tuple[str, ...]
    method: str
    start: float | None = None

    def __str__(self) -> str:
        start = "" if self.start is None else f", start {self.start:g}/K"
        return f"{self.method}{start} of {', '.join(self.sources)}"


@dataclass(frozen=True)
class Tried:
    """A candidate, and what a trial of it gave.

    Attributes:
        stage: in which it was tried; share: length of the trial, of a full run.
        dev, stderr: the headline metric on dev.
    """

    stage: str
    candidate: Candidate
    share: float
    dev: float | None
    stderr: float | None

    @property
    def value(self) -> float:
        """What is compared: undefined is worst."""
        return float("-inf") if self.dev is None else self.dev


@dataclass
class Choice:
    """A search and its outcome.

    Attributes:
        tried: all trials, in their order.
        chosen: the best.
        budget, cost: in runs of the full length.
    """

    metric: str
    rows: int
    budget: float
    tried: list[Tried] = field(default_factory=list)
    chosen: Candidate | None = None

    @property
    def cost(self) -> float:
        """What the trials cost."""
        return sum(item.share for item in self.tried)

    def to_dict(self) -> dict[str, Any]:
        """As JSON, for a manifest."""
        assert self.chosen is not None
        return {
            "by": f"dev {self.metric}",
            "rows": self.rows,
            "budget": self.budget,
            "cost": self.cost,
            "chosen": asdict(self.chosen),
            "tried": [asdict(item) for item in self.tried],
        }

    def text(self) -> str:
        """A table of all trials, the chosen one marked."""
        from tabulate import tabulate

        rows = [
            [
                item.stage,
                ", ".join(item.candidate.sources),
                item.candidate.method,
                "" if item.candidate.start is None else f"{item.candidate.start:g}/K",
                f"{item.share:g}",
                "–" if item.dev is None else f"{item.dev:.4f}",
                "" if item.stderr is None else f"± {item.stderr:.4f}",
                "◀" if item.candidate == self.chosen and item.stage == "full" else "",
            ]
            for item in self.tried
        ]
        headers = ["stage", "sources", "method", "start", "length", f"dev {self.metric}", "", ""]
        table = tabulate(rows, headers=headers, disable_numparse=True)
        return (
            f"{table}\n{len(self.tried)} trials on {self.rows} dev rows, {self.cost:g} full runs "
            f"of a seed of their own (at most {self.budget:g}); chosen: {self.chosen}"
        )


Score = Callable[[Candidate, float], tuple[float | None, float | None]]
"""(candidate, share of the full length) → its metric on dev, and the standard error."""


def expected_cost(sources: int, methods: int) -> float:
    """Runs of the full length that a search over ``sources`` costs at most."""
    alone = sources + (1 if sources > 1 else 0)
    growing = sum(max(0, sources - size) for size in range(1, min(LONGEST, sources)))
    used = SETS * (1 if methods == 1 else 3)
    return SHARES["single"] * (alone + growing) + SHARES["used"] * used + FINALISTS


def check_budget(budget: float, sources: int, methods: int = 2) -> None:
    """Refuse a budget that does not even try every source and train one in full.

    Raises:
        RequestError: says what it takes.
    """
    need = SHARES["single"] * sources + SHARES["full"]
    if not budget >= need:
        raise RequestError(
            f"--trials {budget:g}: trying {sources} sources alone and training the best takes "
            f"{need:g}; all stages {expected_cost(sources, methods):g} at most."
        )


def search(
    sources: Sequence[str],
    methods: Sequence[str],
    score: Score,
    *,
    metric: str,
    rows: int,
    budget: float = BUDGET,
    starts: Mapping[str, float] | None = None,
    tell: Callable[[Tried], object] = lambda tried: None,
) -> Choice:
    """Search for the best use of ``sources``.

    Args:
        methods: compositions to choose between; sets are judged by the first.
        score: tries a candidate.
        rows: of dev, for the record.
        starts: of those of ``methods`` whose start can be set, the usual one.
        tell: called after every trial.

    Raises:
        RequestError: the budget does not even try every source alone and train one in full.
    """
    first = methods[0]
    everything = tuple(sources)
    check_budget(budget, len(everything), len(methods))
    found = Choice(metric, rows, budget)
    done: dict[tuple[Candidate, float], Tried] = {}

    def attempt(stage: str, candidate: Candidate, keep: float) -> Tried | None:
        """Try a candidate, if that leaves ``keep`` of the budget."""
        share = SHARES[stage]
        known = done.get((candidate, share))
        if known is None:
            if found.cost + share + keep > budget + 1e-9:
                return None
            known = Tried(stage, candidate, share, *score(candidate, share))
            done[candidate, share] = known
            found.tried.append(known)
            tell(known)
        return known

    def all_of(stage: str, candidates: Iterable[Candidate], keep: float) -> list[Tried]:
        tried = (attempt(stage, candidate, keep) for candidate in candidates)
        return [item for item in tried if item is not None]

    finals = FINALISTS * SHARES["full"]
    single = all_of("single", (Candidate((task,), first) for task in everything), SHARES["full"])
    sets = list(single)
    if len(everything) > 1:
        sets += all_of("single", [Candidate(everything, first)], SHARES["full"])
    best = max(single, key=lambda item: item.value)
    while len(best.candidate.sources) < min(LONGEST, len(everything)):
        held = best.candidate.sources
        grown = [
            Candidate(_ordered((*held, task), everything), first)
            for task in everything
            if task not in held
        ]
        tried = all_of("forward", grown, finals)
        sets += tried
        better = max(tried, key=lambda item: item.value, default=best)
        if better.value <= best.value:
            break
        best = better
    chosen_sets = _distinct(sets)[:SETS]
    uses = [
        Candidate(item.candidate.sources, method, start)
        for item in chosen_sets
        for method in methods
        for start in _starts(len(item.candidate.sources), (starts or {}).get(method))
    ]
    used = all_of("used", uses, finals) or chosen_sets
    ranked = sorted(used, key=lambda item: (-item.value, len(item.candidate.sources)))
    full = all_of("full", (item.candidate for item in ranked[:FINALISTS]), 0.0)
    top = min(full, key=lambda item: (-item.value, len(item.candidate.sources)))
    found.chosen = top.candidate
    return found


def _starts(count: int, usual: float | None) -> list[float | None]:
    """The usual start and another one: every source at 1, or, where that is it, at 1/K."""
    if usual is None:
        return [None]
    return [None, float(count) if usual != count else 1.0]


def _ordered(sources: Sequence[str], everything: Sequence[str]) -> tuple[str, ...]:
    return tuple(task for task in everything if task in sources)


def _distinct(tried: Sequence[Tried]) -> list[Tried]:
    """Best first, each set once; of equals the one with fewer sources."""
    ranked = sorted(tried, key=lambda item: (-item.value, len(item.candidate.sources)))
    seen: dict[tuple[str, ...], Tried] = {}
    for item in ranked:
        seen.setdefault(item.candidate.sources, item)
    return list(seen.values())
