"""Bottleneck methods of our own: stock placement and residuals around a core of two maps.

A core is ``down: (B,T,D) → (B,T,R)``, activation included, and linear ``up: (B,T,R) → (B,T,D)``:
what stage two needs of a source (:mod:`mtl.methods.source`), so every core composes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.backbone.cores import CORES
from mtl.methods.library import activate, trainable
from mtl.methods.method import Method, RunFacts
from mtl.methods.pfeiffer import exact_reduction_factor
from mtl.methods.placement import placement_fields, signature_of
from mtl.methods.tuned import Tuned

if TYPE_CHECKING:
    from torch import nn

    from mtl.backbone.injection import CoreConfig

Builder = Callable[["CoreConfig", int, int], "tuple[nn.Module, nn.Module]"]
"""(config, D, R) → (down, up); the settings are ``config.options``."""


def core_config(
    core: str, settings: Any, size: int, hidden_size: int, **options: Any
) -> CoreConfig:
    """The config of a core with R = ``size`` at the sites of ``settings.placement``.

    ``options`` go over the settings in what the builder sees.
    """
    from mtl.backbone.injection import CoreConfig

    return CoreConfig(
        reduction_factor=exact_reduction_factor(size, hidden_size),
        non_linearity="relu",  # the core brings its own
        core=core,
        options={**asdict(settings), **options},
        **placement_fields(settings.placement),
    )


def core_method(
    name: str,
    settings: type,
    *,
    core: str,
    size: Callable[[Any, int], int],
    build: Builder,
    options: Callable[[Any], Mapping[str, Any]] = lambda settings: {},
    **rest: Any,
) -> Method:
    """A bottleneck :class:`Method` of our own.

    Args:
        settings: has at least ``placement``.
        core: name of the core; several methods may share one.
        size: (settings, D) → R.
        build: draws the two maps of one site from torch's global generator.
        options: further values for the builder.
        rest: fields of :class:`Method`; ``attach`` and ``load`` where the usual ones do not do.
    """
    CORES[core] = build

    def config(chosen: Any, hidden_size: int) -> CoreConfig:
        return core_config(core, chosen, size(chosen, hidden_size), hidden_size, **options(chosen))

    def placement(chosen: Any, hidden_size: int) -> dict[str, Any]:
        size(chosen, hidden_size)
        return signature_of(chosen.placement)

    defaults: dict[str, Any] = {
        "attach": partial(attach_core, name, config),
        "load": partial(load_core, name, config),
        "activate": activate,
        "placement": placement,
        "composes": "bottleneck",
    }
    return Method(name=name, settings=settings, **{**defaults, **rest})


def attach_core(
    method: str,
    config: Callable[[Any, int], CoreConfig],
    encoder: Any,
    settings: Any,
    name: str,
    _: RunFacts,
) -> Tuned:
    """Add a new adapter with the core, active and trainable."""
    from mtl.engine import Group
    from mtl.methods.files import save_own

    encoder.add_adapter(name, config=config(settings, encoder.config.hidden_size))
    activate(encoder, name)
    parameters = trainable(encoder, name)

    def save(folder: Path, base: str) -> None:
        save_own(folder, method, settings, encoder, parameters, base)

    return Tuned([Group("method", parameters)], save)


def load_core(
    method: str,
    config: Callable[[Any, int], CoreConfig],
    encoder: Any,
    settings: Any,
    name: str,
    folder: Path,
) -> Tuned:
    """Add the stored adapter, frozen, not active.

    Raises:
        ZooError: the files are damaged or do not fit.
    """
    from mtl.methods.files import fill, read_own, save_own

    stored = read_own(folder, method, encoder)
    encoder.add_adapter(name, config=config(settings, encoder.config.hidden_size))
    parameters = trainable(encoder, name)
    for parameter in parameters.values():
        parameter.requires_grad_(False)
    fill(method, parameters, stored)
    return Tuned(
        [], lambda target, base: save_own(target, method, settings, encoder, parameters, base)
    )


def core_modules(encoder: Any, name: str) -> dict[str, Any]:
    """The adapter modules of ``name`` by site, ``"3.output_adapter"``, bottom up."""
    from mtl.backbone.injection import bottleneck_layers

    return {
        f"{index}.{location}": layer.adapters[name]
        for index, location, layer in bottleneck_layers(encoder)
        if name in layer.adapters
    }
