"""``--sources best``: which sources, used how, is best for a target, judged on its dev rows.

A search over sets of sources, compositions and starts, by short runs that get longer for fewer
candidates (successive halving). What a trial costs is counted in runs of the full length;
``budget`` of them is not exceeded.

=======  ======  ==================================================================================
stage    length  what is tried
=======  ======  ==================================================================================
single   1/4     each source alone, the own adapter among them; all together; what ``auto`` picks
forward  1/4     the best source with each of the others, the best pair with each of the rest, …,
                 as long as dev gets better
used     1/2     the two best sets and all sources: as they are (``average``), and by the
                 composition asked for, from its usual start and from two others (every source at
                 1/K, and at 1)
full     1       the three best of these, of every composition at least its best
=======  ======  ==================================================================================

The best of the last stage is taken; of equals the one with fewer sources, then the plainer. Sets
are judged by ``average`` where the recipe knows it (nothing but a head learns: on features computed
once that costs one pass over the rows, and says whether the features help), else by the composition
asked for. Where dev is small, :mod:`mtl.compose.judging` has every trial made on folds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mtl.errors import RequestError

BEST = "best"
BUDGET = 12.0
"""Runs of the full length that a search may cost, unless told otherwise."""
SHARES = {"single": 0.25, "forward": 0.25, "used": 0.5, "full": 1.0}
SETS, FINALISTS, LONGEST = 2, 3, 4
"""Sets beside that of all that are used in earnest, candidates that are trained in full, sources of
a grown set."""
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
        dev, stderr: the headline metric on the rows that judge.
        cost: in runs of the full length.
    """

    stage: str
    candidate: Candidate
    share: float
    dev: float | None
    stderr: float | None
    cost: float = 0.0

    @property
    def value(self) -> float:
        """What is compared: undefined is worst."""
        return float("-inf") if self.dev is None else self.dev


Figures = tuple[float | None, float | None]
"""The metric on dev, and its standard error."""
Score = Callable[[Candidate, float], Figures]
"""(candidate, share of the full length) → its figures."""


@dataclass(frozen=True)
class Judge:
    """What judges candidates, and what that costs.

    Attributes:
        score: tries a candidate; score_all: several of one length, which may go side by side.
        at_once: how many go so at most; 1: candidates go one by one.
        metric, rows: by which, and on how many rows.
        by: which rows those are, in words.
        price: (candidate, share) → cost of a trial in runs of the full length.
        shares: stage → length of its trials; finalists: how many are trained in full.
        settled: compositions whose first trial tells all that a longer one would.
        beside: what is paid before any trial, by name.
    """

    score: Score
    metric: str
    rows: int
    by: str = "dev"
    price: Callable[[Candidate, float], float] = lambda candidate, share: share
    shares: Mapping[str, float] = field(default_factory=lambda: SHARES)
    finalists: int = FINALISTS
    settled: Collection[str] = ()
    beside: Mapping[str, float] = field(default_factory=dict)
    score_all: Callable[[Sequence[Candidate], float], list[Figures]] | None = None
    at_once: int = 1

    def scores(self, candidates: Sequence[Candidate], share: float) -> list[Figures]:
        """The figures of each, tried at once where that can be."""
        if self.score_all is not None and len(candidates) > 1:
            return self.score_all(candidates, share)
        return [self.score(candidate, share) for candidate in candidates]


@dataclass
class Choice:
    """A search and its outcome.

    Attributes:
        tried: all trials, in their order.
        chosen: the best.
        budget, cost: in runs of the full length.
        seconds: what the search might take, 0 for any time.
        among: hash of the sources and of how they may be used; equal of a search and its control.
    """

    judge: Judge
    budget: float
    seconds: float = 0.0
    tried: list[Tried] = field(default_factory=list)
    chosen: Candidate | None = None
    among: str = ""

    @property
    def rows(self) -> int:
        """Rows that judged."""
        return self.judge.rows

    @property
    def cost(self) -> float:
        """What the trials cost, and what came before them."""
        return sum(self.judge.beside.values()) + sum(item.cost for item in self.tried)

    def best_trial(self) -> Tried:
        """The longest trial of what was chosen."""
        return max((t for t in self.tried if t.candidate == self.chosen), key=lambda t: t.share)

    def to_dict(self) -> dict[str, Any]:
        """As JSON, for a manifest."""
        assert self.chosen is not None
        return {
            "by": f"{self.judge.by} {self.judge.metric}",
            "rows": self.rows,
            "budget": self.budget,
            **({"among": self.among} if self.among else {}),
            **({"seconds": self.seconds} if self.seconds else {}),
            "cost": self.cost,
            **({"side_by_side": self.judge.at_once} if self.judge.at_once > 1 else {}),
            **({"beside": dict(self.judge.beside)} if self.judge.beside else {}),
            "chosen": asdict(self.chosen),
            "tried": [asdict(item) for item in self.tried],
        }

    def text(self) -> str:
        """A table of all trials, the chosen one marked."""
        from tabulate import tabulate

        assert self.chosen is not None
        marked = self.best_trial()
        rows = [
            [
                item.stage,
                ", ".join(item.candidate.sources),
                item.candidate.method,
                "" if item.candidate.start is None else f"{item.candidate.start:g}/K",
                f"{item.share:g}",
                f"{item.cost:.2f}",
                "–" if item.dev is None else f"{item.dev:.4f}",
                "" if item.stderr is None else f"{item.stderr:.4f}",
                "◀" if item is marked else "",
            ]
            for item in self.tried
        ]
        headers = ["stage", "sources", "method", "start", "length", "cost"]
        headers += [f"dev {self.judge.metric}", "± se", "chosen"]
        table = tabulate(rows, headers=headers, disable_numparse=True)
        beside = "".join(f", {cost:.2f} for {name}" for name, cost in self.judge.beside.items())
        return (
            f"{table}\n{len(self.tried)} trials on {self.rows} {self.judge.by} rows, "
            f"{self.cost:.2f} full runs of a seed of their own (at most {self.budget:g}{beside}); "
            f"chosen: {self.chosen}"
        )


def check_budget(budget: float, need: float, at_most: str) -> None:
    """Refuse a budget that does not even try every source and train one in full.

    Raises:
        RequestError: says what it takes.
    """
    if not budget >= need - 1e-9:
        raise RequestError(
            f"--trials {budget:g}: trying every source alone and training the best takes "
            f"{_above(need):g}; {at_most}."
        )


def check_judged(
    budget: float, judge: Judge, sources: Sequence[str], methods: Sequence[str]
) -> float:
    """Refuse a budget that is too small by what ``judge`` asks for trials; none is made.

    Returns:
        What a full run of the dearest of ``methods`` costs.

    Raises:
        RequestError: as :func:`check_budget`.
    """
    shares, first = judge.shares, methods[0]
    one = max(judge.price(Candidate(tuple(sources), each), shares["full"]) for each in methods)
    need = sum(judge.beside.values()) + one
    need += sum(judge.price(Candidate((task,), first), shares["single"]) for task in sources)
    beside = "".join(f"{cost:.3g} of it {name}; " for name, cost in judge.beside.items())
    usual = f"{BUDGET:g} is usual" if need <= BUDGET else f"give --trials {_above(need):g} or more"
    check_budget(budget, need, beside + usual)
    return one


def _above(need: float) -> float:
    """Rounded up, so that it is enough."""
    return math.ceil(100 * need - 1e-6) / 100


@dataclass
class _Meter:
    """What may still be spent, in full runs and in seconds."""

    choice: Choice
    began: float = field(default_factory=time.monotonic)
    _new: float = 0.0

    def allows(self, cost: float) -> bool:
        choice = self.choice
        if choice.cost + cost > choice.budget + 1e-9:
            return False
        if not choice.seconds or not self._new:
            return True
        passed = time.monotonic() - self.began
        return passed + cost * passed / self._new <= choice.seconds

    def paid(self, cost: float) -> None:
        self._new += cost


def search(
    sources: Sequence[str],
    methods: Sequence[str],
    judge: Judge,
    *,
    budget: float = BUDGET,
    seconds: float = 0.0,
    starts: Mapping[str, float] | None = None,
    suggested: Sequence[Sequence[str]] = (),
    tell: Callable[[Tried], object] = lambda tried: None,
) -> Choice:
    """Search for the best use of ``sources``.

    Args:
        methods: compositions to choose between; sets are judged by the first.
        seconds: after which no trial begins that would not end in time, by the cost of those
            before; 0 for any time. Every source is tried alone all the same.
        starts: of those of ``methods`` whose start can be set, the usual one.
        suggested: further sets to try.
        tell: called after every trial.

    Raises:
        RequestError: the budget does not even try every source alone and train one in full.
    """
    first, shares = methods[0], judge.shares
    everything = tuple(sources)
    found = Choice(judge, budget, seconds)
    meter = _Meter(found)
    done: dict[tuple[Candidate, float], Tried] = {}
    one = check_judged(budget, judge, everything, methods)
    finals = judge.finalists * one
    alone = [Candidate((task,), first) for task in everything]

    def attempt(
        stage: str, candidates: Sequence[Candidate], keep: float, must: bool
    ) -> list[Tried]:
        """Try candidates at once, each if that leaves ``keep`` of the budget."""
        share = shares[stage]
        costs: dict[Candidate, float] = {}
        for candidate in candidates:
            if (candidate, share) in done or candidate in costs:
                continue
            cost = judge.price(candidate, share)
            if must or meter.allows(sum(costs.values()) + cost + keep):
                costs[candidate] = cost
        for candidate, told in zip(costs, judge.scores([*costs], share), strict=True):
            tried = Tried(stage, candidate, share, *told, costs[candidate])
            meter.paid(tried.cost)
            done[candidate, share] = tried
            found.tried.append(tried)
            tell(tried)
        return [done[each, share] for each in candidates if (each, share) in done]

    def all_of(
        stage: str, candidates: Iterable[Candidate], keep: float, *, must: bool = False
    ) -> list[Tried]:
        asked = list(candidates)
        # The clock is looked at before every trial, or group of them.
        size = len(asked) if judge.at_once > 1 and not seconds else judge.at_once
        parts = [asked[start : start + size] for start in range(0, len(asked), max(1, size))]
        return [item for part in parts for item in attempt(stage, part, keep, must)]

    single = all_of("single", alone, one, must=True)
    further = [everything, *(_ordered(item, everything) for item in suggested)]
    sets = single + all_of("single", [Candidate(each, first) for each in further], one)
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
    chosen_sets = list(
        dict.fromkeys(
            [*(item.candidate.sources for item in _distinct(sets)[:SETS]), everything],
        )
    )
    settled = sets if first in judge.settled else []
    # The usual start of every set before the other starts of any.
    turns = [
        (turn, Candidate(each, method, start))
        for each in chosen_sets
        for method in methods
        if method not in judge.settled
        for turn, start in enumerate(_starts(len(each), (starts or {}).get(method)))
    ]
    uses = [candidate for _, candidate in sorted(turns, key=lambda item: item[0])]
    used = settled + all_of("used", uses, finals) or sets
    full = all_of("full", _finalists(used, judge.finalists), 0.0)
    found.chosen = _ranked(full or used)[0].candidate
    return found


def _starts(count: int, usual: float | None) -> list[float | None]:
    """The usual start, and every source at 1/K and at 1, where those are others."""
    if usual is None:
        return [None]
    return [None, *(start for start in dict.fromkeys([1.0, float(count)]) if start != usual)]


def _ranked(tried: Iterable[Tried]) -> list[Tried]:
    """Best first; of equals the one with fewer sources."""
    return sorted(tried, key=lambda item: (-item.value, len(item.candidate.sources)))


def _finalists(used: Sequence[Tried], count: int) -> list[Candidate]:
    """The best of every composition, then the best of all: the trials of two compositions are
    not of one length, so that neither may keep the other out."""
    ranked = list(dict.fromkeys(item.candidate for item in _ranked(used)))
    of_method: dict[str, Candidate] = {}
    for candidate in ranked:
        of_method.setdefault(candidate.method, candidate)
    return list(dict.fromkeys([*of_method.values(), *ranked]))[:count]


def _ordered(sources: Sequence[str], everything: Sequence[str]) -> tuple[str, ...]:
    return tuple(task for task in everything if task in sources)


def _distinct(tried: Sequence[Tried]) -> list[Tried]:
    """Best first, each set once."""
    seen: dict[tuple[str, ...], Tried] = {}
    for item in _ranked(tried):
        seen.setdefault(item.candidate.sources, item)
    return list(seen.values())
