"""What a search behind ``--sources best`` will do and costs at most, before anything is known."""

from __future__ import annotations

from mtl.compose.best import FINALISTS, LONGEST, SETS, SHARES, check_budget
from mtl.errors import RequestError
from mtl.words import counted


def expected_cost(sources: int, methods: int) -> float:
    """Runs of the full length that a search over ``sources`` costs at most, judged on dev."""
    alone = sources + (2 if sources > 1 else 0)
    growing = sum(max(0, sources - size) for size in range(1, min(LONGEST, sources)))
    used = (SETS + 1) * (1 if methods == 1 else 4)
    return SHARES["single"] * (alone + growing) + SHARES["used"] * used + FINALISTS


def search_text(sources: int, methods: int, budget: float, minutes: float | None) -> str:
    """What a search will do and may cost, in lines."""
    most = expected_cost(sources, methods)
    limit = f"; --trials allows {budget:g} of them" if budget < most else ""
    clock = f", and {minutes:g} minutes (--time)" if minutes else ""
    of = "all sources and the two best sets" if sources > 1 else "it"
    lines = {
        "single": "each source alone, all together, what 'auto' picks"
        if sources > 1
        else "the source alone",
        "forward": f"the best with each of the others, and so on to {LONGEST} sources",
        "used": f"{of}, by each composition, from each start",
        "full": f"the {FINALISTS} best of these; the best on dev is chosen",
    }
    told = [f"  {stage:<8} {SHARES[stage]:g} of a run each: {lines[stage]}" for stage in lines]
    return "\n".join(
        [
            f"A search on dev among {counted(sources, 'source')} comes first. It trains what "
            f"{min(most, budget):g} full runs cost at most{limit}{clock}:",
            *(told if sources > 1 else [told[0], *told[2:]]),
            "Sets are judged by 'average' on features computed once, where that can be; where dev "
            "is small, on folds,",
            "which cost more, with an own adapter for each: up to "
            f"{budget:g} full runs (--trials).",
            "Trials of before are not made again. What is chosen is then composed.",
        ]
    )


def check_early(budget: float, sources: int, minutes: float | None) -> None:
    """Refuse budgets that are too small whatever the trials cost. Raises RequestError."""
    at_most = f"all stages {expected_cost(sources, 2):g} at most"
    check_budget(budget, SHARES["full"], at_most)
    if minutes is not None and not minutes > 0:
        raise RequestError(f"--time {minutes:g}: minutes must be above 0.")
