"""AdapterSoup: the sources' weights averaged into one frozen adapter; only a head learns.

At every site ``D = Σ_k w_k D_k``, ``c``, ``U`` and ``b`` alike, with w by how similar the sources'
training texts are to the target's (:mod:`mtl.compose.soup_text`)::

    w_k ∝ max(0, mean cosine of sentence embeddings)   for the ``top`` most similar, else 0

(Chronopoulou et al. 2023, arXiv:2302.07027; specs/composition_methods §6.4). Maps of sources that
are stored in factors (Compacter, tensorized, ProPETL) are averaged dense.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from adapters import AdapterConfig
from torch import Tensor, nn

from mtl.backbone.injection import FUSION_MODULES
from mtl.compose.bank import Bank
from mtl.compose.composition import Composed, Composition
from mtl.compose.per_source import values_of
from mtl.compose.scalearn import ScaLearnSettings, ScaLearnSite
from mtl.compose.sites import add_sites, load_stored
from mtl.engine.settings import Training
from mtl.errors import RequestError, ZooError
from mtl.methods.source import PlainSource, as_source, plain_source
from mtl.words import counted
from mtl.zoo.composition import SOUP as WEIGHTS
from mtl.zoo.composition import SOUP_WEIGHTS, SourceWeights, weigh

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


@dataclass(eq=False)
class SoupFusion(AdapterConfig):
    """The config under which ``adapters`` knows a soup; see ``ScaLearnFusion``."""

    architecture: str = "mtl_soup"
    weights: tuple[float, ...] = ()


def stir(views: Sequence[PlainSource], weights: Sequence[float]) -> PlainSource:
    """The weighted average of plain sources: one of them.

    Raises:
        RequestError: bottlenecks of several widths, or several activations.
    """
    used = [(view, weight) for view, weight in zip(views, weights, strict=True) if weight]
    shapes = {view.down.shape for view, _ in used}
    activations = {view.activation for view, _ in used}
    if len(shapes) > 1 or len(activations) > 1:
        sizes = ", ".join(str(shape[0]) for shape in sorted(shapes))
        raise RequestError(
            f"Cannot average the weights of sources of unlike form: bottlenecks {sizes}, "
            f"activations {', '.join(sorted(activations))}. Use sources of one width and one "
            "activation, or --method average, which averages their outputs."
        )

    def mean(field: str) -> Tensor:
        return torch.stack([weight * getattr(view, field) for view, weight in used]).sum(0)

    return PlainSource(
        mean("down"),
        mean("down_bias"),
        used[0][0].activation,
        mean("up_weight"),
        mean("up_bias"),
    )


def _build(layer: Any, sources: list[str], config: SoupFusion) -> ScaLearnSite:
    def combine(views: Sequence[PlainSource]) -> PlainSource:
        return stir(views, config.weights)

    plain = []
    for name in sources:
        found = plain_source(as_source(layer.adapters[name], layer.adapters_config.get(name)))
        if found is None:
            raise RequestError(
                "Cannot average the weights of sources that are no plain bottlenecks (AdaKron): "
                "use --method average, which averages their outputs."
            )
        plain.append(found)
    site = ScaLearnSite(Bank([combine(plain)]))
    site.combine = combine
    # A parameter of the site, so that it moves with it; it never trains.
    site.whole = nn.Parameter(site.bank.up.new_ones(1, 1), requires_grad=False)
    site.bind(site.whole, ScaLearnSettings(per="source", dropout=0.0))
    return site


FUSION_MODULES[SoupFusion] = _build


def attach(encoder: Any, sources: Sequence[str], settings: SoupSettings) -> Composed:
    """Put the soup of the adapters named ``sources`` into ``encoder``; active, nothing trains.

    Without weights (counting), every source weighs the same.

    Raises:
        RequestError: not one weight per source; see :func:`stir`.
    """
    equal = [1 / len(sources)] * len(sources)
    weights = settings.numbers() if settings.weights else equal
    if len(weights) != len(sources):
        raise RequestError(
            f"weights={settings.weights!r} are {len(weights)} for "
            f"{counted(len(sources), 'source')}."
        )
    add_sites(encoder, sources, SoupFusion(weights=tuple(weights)))
    stored = torch.tensor(weights)

    def load(tensors: Any) -> None:
        load_stored("soup", {SOUP_WEIGHTS: torch.nn.Parameter(torch.empty_like(stored))}, tensors)
        if not torch.allclose(tensors[SOUP_WEIGHTS], stored):
            raise ZooError("The stored weights of the soup are not those of its settings.")

    return Composed(parameters={}, tensors=lambda: {SOUP_WEIGHTS: stored.clone()}, load=load)


def shares(composed: Composed, settings: SoupSettings) -> SourceWeights:
    """The weights of the average, the same at every site and for every input."""
    return weigh(WEIGHTS, {"shared": composed.tensors()[SOUP_WEIGHTS].numpy()})


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
    attach=attach,
    shares=shares,
    summary="the sources' weights averaged by similarity of texts; only the head learns",
    citation="Chronopoulou et al. 2023, AdapterSoup, arXiv:2302.07027; spec composition §6.4",
    training=Training(
        "spec composition §6.2", {"lr": 0.0003, "epochs": 30, "patience": "5 epochs"}
    ),
    prepare=prepare,
    kinds=("bottleneck",),
    refusal="a sum of averaged factors is no average of low-rank deltas",
    per_source="weights",
)
