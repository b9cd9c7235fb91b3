"""AdapterSoup: the sources' weights averaged into one frozen adapter; only a head learns.

At every site ``D = Σ_k w_k D_k``, ``c``, ``U`` and ``b`` alike, with w by how similar the sources'
training texts are to the target's (:mod:`mtl.compose.soup_text`)::

    w_k ∝ max(0, mean cosine of sentence embeddings)   for the ``top`` most similar, else 0

(Chronopoulou et al. 2023, arXiv:2302.07027). Maps of sources that
are stored in factors (Compacter, tensorized, ProPETL) are averaged dense.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mtl.compose.composition import Composition
from mtl.compose.per_source import values_of
from mtl.engine.settings import Training
from mtl.errors import RequestError
from mtl.lazy import later

if TYPE_CHECKING:
    from mtl.backbone import Backbone
    from mtl.compose.stage_two import Target
    from mtl.runs import Workspace
    from mtl.zoo import Entry


@dataclass(frozen=True)
class SoupSettings:
    """Settings of AdapterSoup.

    Attributes:
        top: how many of the most similar sources are averaged.
        embedder: sentence encoder: a Hub name or a folder, whose tokens are averaged; ``base`` for
            the run's own frozen encoder, which needs no download.
        rows: training texts per task that are embedded.
        weights: w_k of every source by its task, as ``rte:0.7,mrpc:0.3`` (numbers alone follow
            ``--sources``), in place of the similarity of texts. A run records here what it used.
    """

    top: int = 5
    embedder: str = "sentence-transformers/all-mpnet-base-v2"
    rows: int = 10_000
    weights: str = ""

    def __post_init__(self) -> None:
        for name in ("top", "rows"):
            if getattr(self, name) < 1:
                raise RequestError(f"{name}={getattr(self, name)} must be at least 1.")
        if self.weights:
            self.numbers()

    def numbers(self) -> list[float]:
        """The weights as numbers that add up to 1.

        Raises:
            RequestError: something in it is no number, negative, or all are 0.
        """
        found = values_of(self.weights, "weights", "0.7,0.3")
        total = sum(found)
        if not all(0 <= number < float("inf") for number in found) or not total > 0:
            raise RequestError(f"weights={self.weights!r} must not be negative, nor all 0.")
        return [number / total for number in found]


def prepare(
    settings: SoupSettings,
    target: Target,
    sources: Sequence[Entry],
    backbone: Backbone,
    workspace: Workspace,
) -> SoupSettings:
    """The settings with weights, by the similarity of texts where none are given."""
    if settings.weights:
        return settings
    from mtl.compose.soup_text import similarities

    found = similarities(
        target.data, sources, settings.embedder, settings.rows, backbone, workspace
    )
    kept = sorted(range(len(found)), key=lambda k: -found[k])[: settings.top]
    clipped = [max(0.0, value) if k in kept else 0.0 for k, value in enumerate(found)]
    if not any(clipped):
        raise RequestError(
            "No source's texts are similar to the target's (all mean cosines are at most 0): set "
            "weights=… yourself, or use another embedder."
        )
    total = sum(clipped)
    return replace(settings, weights=",".join(f"{value / total:.6g}" for value in clipped))


SOUP = Composition(
    name="soup",
    settings=SoupSettings,
    defaults={},
    attach=later("mtl.compose.modules.soup:attach"),
    shares=later("mtl.compose.modules.soup:shares"),
    summary="the sources' weights averaged by similarity of texts; only the head learns",
    citation="Chronopoulou et al. 2023, AdapterSoup, arXiv:2302.07027",
    training=Training(
        "CPJKU/ScaLearn, src/scripts/soup", {"lr": 0.0003, "epochs": 30, "patience": "5 epochs"}
    ),
    prepare=prepare,
    kinds=("bottleneck",),
    refusal="a sum of averaged factors is no average of low-rank deltas",
    per_source="weights",
)
