"""Stage two: learn, for a target task, how to use frozen source adapters."""

from typing import TYPE_CHECKING

from mtl.lazy import exports

if TYPE_CHECKING:
    from mtl.compose.bank import Bank
    from mtl.compose.composition import COMPOSITIONS, Composed, Composition
    from mtl.compose.count import count_composition
    from mtl.compose.sources import resolve_sources
    from mtl.compose.stage_two import (
        Target,
        build_composition,
        plan_compose,
        resolve_compose,
        resolve_target,
    )
    from mtl.compose.stored import find_parents, load_composition

__all__, __getattr__, __dir__ = exports(
    __name__,
    {
        "bank": ["Bank"],
        "composition": ["COMPOSITIONS", "Composed", "Composition"],
        "count": ["count_composition"],
        "stored": ["find_parents", "load_composition"],
        "sources": ["resolve_sources"],
        "stage_two": [
            "Target",
            "build_composition",
            "plan_compose",
            "resolve_compose",
            "resolve_target",
        ],
    },
)
