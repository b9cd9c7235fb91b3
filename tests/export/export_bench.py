"""Sources of all methods, compositions of them, and stock encoders to fold them into."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from mtl.backbone.linear import linear_sites
from mtl.compose.composition import COMPOSITIONS
from mtl.compose.sites import site_keys
from mtl.methods import METHODS, as_source, attach, source_names
from mtl.methods.low_rank import Factors
from mtl.methods.method import make_settings
from mtl.methods.modules.low_rank import add_source
from mtl.runs import Loaded


def entry_of(method: str, task: str = "mini/task", **manifest: Any) -> Any:
    """What folding reads of an entry."""
    values = {"method": method, "weights": "adapters", "task": {"id": task}, "kind": "adapter"}
    return SimpleNamespace(
        ref=f"base/{task}/{method}", manifest=SimpleNamespace(**(values | manifest))
    )


def sources(encoder: Any, kinds: Sequence[tuple[str, dict[str, Any]]], jiggle: Any) -> list[Any]:
    """Add one adapter per (method, settings) with random weights; their stand-in entries.

    The whole encoder is fp64 from then on.
    """
    found = []
    for index, (name, (method_name, values)) in enumerate(
        zip(source_names(len(kinds)), kinds, strict=True)
    ):
        method = METHODS.get(method_name)
        settings = make_settings(method_name, method.settings, {**method.defaults, **values})
        tuned = attach(encoder, method, settings, name)
        encoder.double()
        jiggle(tuned.parameters.values(), 0.2, seed=index)
        if method.as_source is not None:
            method.as_source(encoder, settings, name)
        found.append(entry_of(method_name, f"mini/task{index}"))
    for parameter in encoder.parameters():
        parameter.requires_grad_(False)
    return found


def composed(
    encoder: Any, entries: list[Any], variant: str = "scalearn", **values: Any
) -> tuple[Loaded, Any]:
    """Compose them with a random omega, in evaluation mode."""
    names = source_names(len(entries))
    composition = COMPOSITIONS.get(variant)
    settings = make_settings(variant, composition.settings, {**composition.defaults, **values})
    found = composition.attach(encoder, names, settings)
    encoder.double().eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in found.parameters.values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    network: Any = SimpleNamespace(encoder=encoder)
    entry = entry_of(variant, kind="composition")
    return Loaded(entry, entries, names, network, None, found), found  # type: ignore[arg-type]


def factors(
    encoder: Any, ranks: int | dict[str, int], seed: int, modules: Any
) -> dict[str, Factors]:
    """Random factors; ``ranks`` one number, or one per module (0 for none)."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return 0.2 * torch.randn(*shape, generator=generator, dtype=torch.float64)

    found = {}
    for site, linear in linear_sites(encoder, modules).items():
        rank = ranks if isinstance(ranks, int) else ranks.get(site.partition(".")[2], 0)
        found[site] = Factors(draw(rank, linear.in_features), draw(linear.out_features, rank))
    return found


def low_rank(
    backbone: Any, ranks: list[Any], modules: Any, variant: str, **values: Any
) -> tuple[Loaded, Any]:
    """A composition of low-rank sources with random factors, one per entry of ``ranks``."""
    encoder = backbone.encoder().double()
    for index, name in enumerate(source_names(len(ranks))):
        add_source(encoder, name, factors(encoder, ranks[index], index, modules))
    entries = [entry_of("lora", f"mini/task{k}") for k in range(len(ranks))]
    return composed(encoder, entries, variant, **values)


def looped(encoder: Any, names: Sequence[str], tokens: dict[str, Tensor]) -> list[Tensor]:
    """Hidden states with every site computed as the paper writes it, source by source."""
    from mtl.backbone.injection import bottleneck_layers

    sites = site_keys(encoder)
    layers = [m for _, _, m in bottleneck_layers(encoder) if names[0] in m.adapters]
    for site, layer in zip(sites.values(), layers, strict=True):
        views = [as_source(layer.adapters[n], layer.adapters_config.get(n)) for n in names]

        def forward(z: Tensor, site: Any = site, views: Any = views) -> Tensor:
            total = torch.zeros_like(z)
            for scale, source in zip(site.effective(), views, strict=True):
                up, bias = source.up()
                total = total + scale * (source.features(z) @ up.t() + bias)
            return total

        site.forward = forward
    try:
        return hidden(encoder, tokens)
    finally:
        for site in sites.values():
            del site.forward


def stock_encoder(backbone: Any) -> Any:
    """The base in fp64 as stock ``adapters`` prepares it: nothing of ours in it."""
    import adapters

    encoder = copy.deepcopy(backbone.pristine)
    adapters.init(encoder)
    return encoder.double().eval()


@torch.no_grad()
def hidden(encoder: Any, tokens: dict[str, Tensor]) -> list[Tensor]:
    return list(encoder(**tokens, output_hidden_states=True).hidden_states)


def largest(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """Largest difference over all hidden states, of values near 1."""
    return max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))
