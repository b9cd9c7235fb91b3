"""Transferability scores: numbers from features, texts and weights, without any training run."""

from typing import TYPE_CHECKING

from mtl.lazy import exports

if TYPE_CHECKING:
    from mtl.graph.scores.score import (
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
        "score": [
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
