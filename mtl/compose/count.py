"""Exact parameter counts of compositions, from the real modules on the meta device."""

from __future__ import annotations

from typing import Any

from mtl.backbone import skeleton
from mtl.compose.base import COMPOSITIONS
from mtl.methods import METHODS, Count
from mtl.methods.base import attach, make_settings, source_names
from mtl.methods.count import count_head, numel


def count_composition(
    name: str,
    model: str,
    *,
    sources: int,
    values: dict[str, Any],
    source_method: str = "pfeiffer",
    head: str | None = None,
    labels: int = 2,
) -> Count:
    """Count what composition ``name`` trains over K ``sources`` on ``model``.

    Raises:
        RequestError: unknown composition, setting or model shape.
    """
    import torch

    composition = COMPOSITIONS.get(name)
    settings = make_settings(name, composition.settings, {**composition.defaults, **values})
    method = METHODS.get(source_method)
    encoder = skeleton(model)
    names = source_names(sources)
    with torch.device("meta"):
        for source in names:
            attach(encoder, method, make_settings(source_method, method.settings, {}), source)
        composed = composition.attach(encoder, names, settings)
    return Count(numel(composed.parameters.values()), 0, count_head(head, encoder.config, labels))
