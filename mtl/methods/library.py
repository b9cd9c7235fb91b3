"""Methods that ``adapters`` ships: our settings in, its config, modules and files out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.methods.method import Method, RunFacts
from mtl.methods.tuned import Tuned

if TYPE_CHECKING:
    from torch import nn

Config = Callable[[Any, int], Any]
"""(settings, hidden size) → the ``adapters`` config object."""


Ready = Callable[[Any, Any, str], None]
"""(encoder, settings, name) changes how an adapter that was added computes."""


def library_method(
    name: str,
    settings: type,
    config: Config,
    *,
    undecayed: str = "",
    ready: Ready | None = None,
    **rest: Any,
) -> Method:
    """A :class:`Method` whose adapter ``adapters`` builds, stores and loads from ``config``.

    Args:
        undecayed, ready: see :func:`attach_library`.
    """
    return Method(
        name=name,
        settings=settings,
        attach=partial(attach_library, config, undecayed=undecayed, ready=ready),
        load=partial(load_library, config, ready=ready),
        activate=activate,
        **rest,
    )


def attach_library(
    config: Config,
    encoder: Any,
    settings: Any,
    name: str,
    _: RunFacts,
    *,
    undecayed: str = "",
    ready: Ready | None = None,
) -> Tuned:
    """Add a new adapter of ``config``, active and trainable.

    Args:
        undecayed: how names of matrices end that no weight decay may reach; empty: none do.
        ready: called once it is there; None where it computes as ``adapters`` has it.
    """
    from mtl.backbone import save_adapter
    from mtl.engine import Group

    encoder.add_adapter(name, config=config(settings, encoder.config.hidden_size))
    if ready is not None:
        ready(encoder, settings, name)
    activate(encoder, name)
    parameters = trainable(encoder, name)
    kept = {k: v for k, v in parameters.items() if undecayed and k.endswith(undecayed)}
    rest = {k: v for k, v in parameters.items() if k not in kept}
    groups = [Group("method", rest)]
    if kept:
        groups.append(Group("undecayed", kept, weight_decay=0.0))
    return Tuned(groups, lambda folder, base: save_adapter(encoder, name, folder, base))


def load_library(
    config: Config,
    encoder: Any,
    settings: Any,
    name: str,
    folder: Path,
    *,
    ready: Ready | None = None,
) -> Tuned:
    """Add the stored adapter, frozen, not active.

    Raises:
        ZooError: the files are damaged or do not fit.
    """
    from mtl.backbone import load_adapter, save_adapter
    from mtl.backbone.injection import adapter_parameters

    load_adapter(encoder, folder, name, config(settings, encoder.config.hidden_size))
    if ready is not None:
        ready(encoder, settings, name)
    for parameter in adapter_parameters(encoder, name).values():
        parameter.requires_grad_(False)
    return Tuned([], lambda target, base: save_adapter(encoder, name, target, base))


def activate(encoder: Any, name: str) -> None:
    """Make ``name`` the one active adapter."""
    encoder.set_active_adapters(name)


def trainable(encoder: Any, name: str) -> dict[str, nn.Parameter]:
    """The adapter's parameters, asking for gradients, by names without the adapter's own.

    The adapter's name is no part of a parameter's identity in files and resume points.
    """
    from mtl.backbone.injection import adapter_parameters

    parameters = adapter_parameters(encoder, name)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    return {key.replace(f".{name}.", "."): value for key, value in parameters.items()}
