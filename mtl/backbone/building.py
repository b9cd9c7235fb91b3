"""From a config to the model that we take of its type, with random weights or after loading."""

from __future__ import annotations

from typing import Any

from mtl.backbone.arch import Arch


def config_to_load(config: Any, arch: Arch) -> Any:
    """The config under which a model is loaded: of the type that its class is a copy of."""
    from transformers import AutoConfig

    if arch.like:
        values = {key: value for key, value in config.to_dict().items() if key != "model_type"}
        config = AutoConfig.for_model(arch.like, **values)
    for key, value in arch.settings.items():
        setattr(config, key, value)
    layers = arch.names.get("num_hidden_layers")
    if layers:  # what a file says under the usual name need not be what is built
        config.num_hidden_layers = getattr(config, layers)
    return config


def build(config: Any, arch: Arch) -> Any:
    """A model with random weights, of a config to load: what we take of such a type."""
    import transformers

    return part_of(getattr(transformers, arch.auto).from_config(config, **arch.load), arch)


def part_of(model: Any, arch: Arch | None) -> Any:
    """The part of a loaded model that is ours: its encoder, where it has a decoder, too."""
    return model.get_submodule(arch.part) if arch is not None and arch.part else model
