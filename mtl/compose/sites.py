"""Putting a composition's sites into an encoder: what all compositions share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from adapters import AdapterConfig
from adapters.composition import Fuse
from torch import nn

from mtl.backbone.cores import FUSION_MODULES
from mtl.backbone.injection import FusionSite, bottleneck_layers
from mtl.compose.bank import Bank
from mtl.errors import RequestError, ZooError
from mtl.methods.source import as_source

NAME = "composition"
"""The name of the one composition in an encoder."""


def register(config: type[AdapterConfig], site: Callable[[Bank], FusionSite]) -> None:
    """Let ``adapters`` build ``site`` over the bank of its sources wherever ``config`` is added."""

    def build(layer: Any, sources: list[str], _: Any) -> FusionSite:
        return site(
            Bank([as_source(layer.adapters[s], layer.adapters_config.get(s)) for s in sources])
        )

    FUSION_MODULES[config] = build


def add_sites(encoder: Any, sources: Sequence[str], config: AdapterConfig) -> dict[str, Any]:
    """Compose the adapters ``sources`` of ``encoder`` at all their sites, and activate that.

    Returns:
        The sites by key, bottom up: ``"0"``, ``"1"``, … for placements with one site per layer;
        ``"0.mh_adapter"``, ``"0.output_adapter"``, … for houlsby.

    Raises:
        RequestError: the sources have no bottleneck site.
    """
    names = list(sources)
    encoder.add_adapter_fusion(names, config=config, name=NAME)
    sites = site_keys(encoder)
    if not sites:
        raise RequestError("The sources have no bottleneck site in common; nothing to compose.")
    encoder.set_active_adapters(Fuse(*names, name=NAME))
    for site in sites.values():
        site.train(encoder.training)
    return sites


def site_keys(encoder: Any) -> dict[str, Any]:
    """The sites of the composition in ``encoder`` by key, as :func:`add_sites` returns them."""
    found = [
        (index, location, layer.adapter_fusion_layer[NAME])
        for index, location, layer in bottleneck_layers(encoder)
        if NAME in layer.adapter_fusion_layer
    ]
    single = len({location for _, location, _ in found}) == 1
    return {
        str(index) if single else f"{index}.{location}": site for index, location, site in found
    }


@torch.no_grad()
def load_stored(
    what: str, parameters: Mapping[str, nn.Parameter], stored: Mapping[str, torch.Tensor]
) -> None:
    """Copy stored tensors into ``parameters`` of the same names and shapes.

    Raises:
        ZooError: names or shapes differ; says both sides.
    """
    expected = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    found = {name: tuple(tensor.shape) for name, tensor in stored.items()}
    if expected != found:
        raise ZooError(
            f"The stored {what} does not fit this composition: expected {expected}, found {found}."
        )
    for name, parameter in parameters.items():
        parameter.copy_(stored[name])
