"""Transferability scores: numbers from features, texts and weights, without any training run."""

from typing import TYPE_CHECKING

from mtl.lazy import exports

if TYPE_CHECKING:
    from mtl.graph.scores.base import (
        SCORES,
        Candidate,
        Score,
        TaskView,
        Unscorable,
        baseline,
        compute,
    )

__all__, __getattr__, __dir__ = exports(
    __name__,
    {
        "base": [
            "SCORES",
            "Candidate",
            "Score",
            "TaskView",
            "Unscorable",
            "baseline",
            "compute",
        ]
    },
)
