"""Exact parameter counts of compositions, from the real modules on the meta device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from mtl.backbone.arch import check_method
from mtl.compose.composition import COMPOSITIONS, Composition
from mtl.compose.sources import check_kinds
from mtl.methods import METHODS, Count, find_method
from mtl.methods.count import count_head, known_count, numel
from mtl.methods.method import Method, attach, make_settings, settings_dict, source_names


def count_composition(
    name: str,
    model: str,
    *,
    sources: int,
    values: dict[str, Any],
    source_method: str = "pfeiffer",
    source_settings: Any = None,
    head: str | None = None,
    labels: int = 2,
) -> Count:
    """Count what composition ``name`` trains over K ``sources`` on ``model``.

    All parameters are those of base, sources and head; of low-rank sources, their factors.

    Args:
        values: of the composition's settings, over the defaults of its name.
        source_settings: of the sources' method, None for its own defaults.

    Raises:
        RequestError: unknown composition, setting or model shape, or sources that it cannot use.
    """
    composition = COMPOSITIONS.get(name)
    settings = make_settings(name, composition.settings, {**composition.defaults, **values})
    method = find_method(source_method)
    check_kinds(composition, [source_method])
    chosen = source_settings or make_settings(source_method, method.settings, dict(method.defaults))
    of_sources = [sources, source_method, asdict(chosen)]
    what = ["composition", name, settings_dict(settings), *of_sources, head, labels]

    def count() -> Count:
        names = source_names(sources)
        return _count(composition, settings, names, method, chosen, model, head, labels)

    ours = COMPOSITIONS.ours(composition, name) and METHODS.ours(method, source_method)
    return known_count(what, model, count, ours)


def _count(
    composition: Composition,
    settings: Any,
    names: Sequence[str],
    method: Method,
    chosen: Any,
    model: str,
    head: str | None,
    labels: int,
) -> Count:
    import torch

    from mtl.backbone import skeleton
    from mtl.methods.modules.low_rank import low_rank_sources

    encoder = skeleton(model)
    check_method(encoder.config.model_type, composition.name)
    with torch.device("meta"):
        for source in names:
            if method.load_source is not None:
                method.load_source(encoder, chosen, source, None)
                continue
            attach(encoder, method, chosen, source)
            if method.as_source is not None:
                method.as_source(encoder, chosen, source)
        base = numel(encoder.parameters())
        for sites in low_rank_sources(encoder).values():
            base += sum(found.down.numel() + found.up.numel() for found in sites.values())
        composed = composition.attach(encoder, names, settings)
    own = numel(composed.parameters.values())
    of_head = count_head(head, encoder.config, labels)
    return Count(own, 0, of_head, own, 0, base + own + of_head)
