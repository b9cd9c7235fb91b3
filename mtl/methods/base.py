"""What a stage-one method is, and the operations that all methods share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.backbone.adapter_files import load_adapter
from mtl.backbone.injection import adapter_parameters
from mtl.errors import RequestError
from mtl.registry import Registry

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Method:
    """A way to train one adapter on one task.

    Attributes:
        name: what ``--method`` takes.
        settings: frozen dataclass of its settings; its ``__post_init__`` checks them.
        summary: one line for ``mtl.methods ls``.
        citation: paper, section.
        config: (settings, hidden size) → the ``adapters`` config object.
        weights: how its entry stores weights: ``adapters``, ``peft`` or ``delta``.
    """

    name: str
    settings: type
    summary: str
    citation: str
    config: Callable[[Any, int], Any]
    weights: str = "adapters"


METHODS: Registry[Method] = Registry("method", Method)
METHODS.add("pfeiffer", "mtl.methods.pfeiffer:METHOD")


def make_settings(owner: str, settings: type, values: dict[str, Any]) -> Any:
    """Build a settings dataclass from plain values.

    Raises:
        RequestError: an unknown key, or a value that the dataclass refuses.
    """
    try:
        return settings(**values)
    except TypeError as error:
        raise RequestError(f"Settings of {owner}: {error}.") from error


def attach(encoder: Any, method: Method, settings: Any, name: str) -> dict[str, nn.Parameter]:
    """Add a new adapter ``name`` to ``encoder``, activate it, and return its parameters.

    The parameters are trainable; everything else of the encoder stays as it is.
    """
    encoder.add_adapter(name, config=method.config(settings, encoder.config.hidden_size))
    encoder.set_active_adapters(name)
    parameters = adapter_parameters(encoder, name)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    # The adapter's own name is no part of a parameter's identity in files and resume points.
    return {key.replace(f".{name}.", "."): value for key, value in parameters.items()}


def load(encoder: Any, method: Method, settings: Any, name: str, folder: Path) -> None:
    """Add the adapter stored in ``folder`` to ``encoder`` as ``name``, frozen and not active.

    Raises:
        ZooError: the files are damaged or do not fit.
    """
    load_adapter(encoder, folder, name, method.config(settings, encoder.config.hidden_size))
    for parameter in adapter_parameters(encoder, name).values():
        parameter.requires_grad_(False)


def source_names(count: int) -> list[str]:
    """Names under which K sources live in an encoder: equal length, so none is another's prefix."""
    return [f"source{index:04d}" for index in range(count)]


def settings_dict(settings: Any) -> dict[str, Any]:
    """A settings dataclass as the manifest records it."""
    return asdict(settings)
