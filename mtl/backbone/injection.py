"""How our modules get into an encoder that ``adapters`` has prepared.

``adapters`` has no registry for bottleneck modules or fusion methods, but it finds everything it
manages by walking instances. So :func:`init` runs ``adapters.init`` and then gives every
:class:`~adapters.methods.bottleneck.BottleneckLayer` *instance* a subclass of its own class, which
looks into the two registries of :mod:`mtl.backbone.cores`. Nothing of the library is patched; an
encoder that was not passed through :func:`init` behaves exactly as stock.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import adapters
import torch
from adapters import AdapterModelInterface, BnConfig
from adapters.composition import Fuse
from adapters.methods.bottleneck import BottleneckLayer, BottleneckState, hook_fn
from adapters.methods.modeling import ParallelAdapter
from torch import nn

from mtl.backbone.arch import arch_of
from mtl.backbone.cores import CORES, FUSION_MODULES
from mtl.backbone.lean import lean_attention, lean_lora


@dataclass(eq=False)
class CoreConfig(BnConfig):
    """A bottleneck adapter whose two maps are ours: stock placement and residuals, own core.

    Its ``architecture`` is ours, so that stock ``adapters`` stops at it instead of building a plain
    bottleneck.

    Attributes:
        core: name in :data:`~mtl.backbone.cores.CORES`.
        options: what the core's builder needs, as JSON.
        late_dropout: the block's dropout acts behind adapter and residual, not before them
            (:mod:`mtl.methods.placement`).
    """

    architecture: str | None = "mtl_bottleneck"
    core: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    late_dropout: bool = False


class FusionSite(nn.Module):
    """What a composition puts at one site: maps the sources' shared input to their mixture.

    ``forward(z)`` takes the sources' input z (B,T,D) and returns (B,T,D), *before* the adapter
    residual, which the layer adds once.
    """


class _BottleneckSeam(BottleneckLayer):
    """The methods of a bottleneck layer that consult our registries."""

    late_dropout: nn.Module | None
    dropout_of: nn.Module | None

    def add_adapter(self, adapter_name: str, layer_idx: int) -> bool:
        added = super().add_adapter(adapter_name, layer_idx)
        if added:
            adapter = self.adapters[adapter_name]
            config = self.adapters_config.get(adapter_name)
            if isinstance(config, CoreConfig):
                down, up = CORES[config.core](config, adapter.input_size, adapter.down_sample)
                adapter.adapter_down, adapter.adapter_up = down, up
                adapter.train(self.training)
                block: Any = self.dropout_of
                if config.late_dropout and self.late_dropout is None and block is not None:
                    self.late_dropout, block.dropout = block.dropout, nn.Identity()
        return added

    def compose_single(self, adapter_setup: str, state: BottleneckState, lvl: int = 0) -> Any:
        return self._finished(super().compose_single(adapter_setup, state, lvl))

    def _finished(self, state: BottleneckState) -> BottleneckState:
        if self.late_dropout is None:
            return state
        return state._replace(hidden_states=self.late_dropout(state.hidden_states))

    def add_fusion_layer(self, adapter_names: list[str] | str) -> None:
        name = adapter_names if isinstance(adapter_names, str) else ",".join(adapter_names)
        config, sources = self.adapters_config.get_fusion(name)
        build = FUSION_MODULES.get(type(config))
        if build is None:
            super().add_fusion_layer(adapter_names)
        elif all(source in self.adapters for source in sources):
            self.adapter_fusion_layer[name] = build(self, list(sources), config)

    def compose_fuse(self, adapter_setup: Fuse, state: BottleneckState, lvl: int = 0) -> Any:
        site = self.adapter_fusion_layer[adapter_setup.name]
        if not isinstance(site, FusionSite):
            return super().compose_fuse(adapter_setup, state, lvl)
        # All sources share a placement signature, so any of them prepares the common input.
        last = adapter_setup.last()
        adapter = self.adapters[last]
        z, _, residual = adapter.pre_forward(
            state.hidden_states, state.input_tensor, state.layer_norm
        )
        mixed = site(z)
        if not isinstance(adapter, ParallelAdapter):
            # ParallelAdapter.post_forward adds the layer's input itself (and stock Fuse, which
            # adds it here, too, counts it twice: docs/methods.md#the-library-underneath).
            mixed = mixed + residual
        return self._finished(
            state._replace(hidden_states=mixed, adapter_residual=residual, last=last)
        )


_UPGRADED: dict[type, type] = {}


def _upgraded(cls: type) -> type:
    if cls not in _UPGRADED:
        # Same name and module: adapters' head loader compares class names.
        namespace = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
        _UPGRADED[cls] = type(cls.__name__, (_BottleneckSeam, cls), namespace)
    return _UPGRADED[cls]


def init(encoder: Any) -> Any:
    """Prepare ``encoder`` for adapters, ours included; returns it. Twice is once.

    What it computes without an adapter stays what it was, bit for bit.
    """
    if not hasattr(encoder, "adapters_config"):
        # It warns whenever a forward runs without an active adapter, which is what a base does,
        # and its T5 calls transformers' by an old name.
        logging.getLogger("adapters").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", "`past_key_value` is deprecated", FutureWarning)
        prepare(encoder)
        _own_norms(encoder)
    for module in encoder.modules():
        if isinstance(module, BottleneckLayer) and not isinstance(module, _BottleneckSeam):
            module.__class__ = _upgraded(type(module))
            module.late_dropout = None
            # Not as a child: it may be the module itself.
            module.__dict__["dropout_of"] = module if hasattr(module, "dropout") else None
    ffn = arch_of(encoder.config).ffn_dropout
    if ffn:
        for index, location, module in bottleneck_layers(encoder):
            if location == "output_adapter":
                layer = dict(encoder.iter_layers())[index]
                module.__dict__["dropout_of"] = layer.get_submodule(ffn)
    return encoder


def prepare(encoder: Any) -> None:
    """``adapters.init`` by the type's entry of the table, without its random biases.

    ``adapters`` 1.3.0 makes anew the fused linears of bias-free models, with a bias as torch draws
    it (docs/methods.md#the-library-underneath).
    """
    arch = arch_of(encoder.config)
    interface = AdapterModelInterface(**arch.interface) if arch.interface else None
    bare = [
        name
        for name, module in encoder.named_modules()
        if isinstance(module, nn.Linear) and module.bias is None
    ]
    adapters.init(encoder, interface=interface)
    for name in bare:
        encoder.get_submodule(name).bias = None
    lean_attention(encoder, eager=arch.eager)
    lean_lora(encoder)
    known = getattr(encoder, "adapter_interface", None)
    if known is not None:  # it adds only what is named there, by the architecture of its config
        methods = [*known.adapter_methods, CoreConfig.architecture]
        encoder.adapter_interface = replace(known, adapter_methods=methods)


def _own_norms(encoder: Any) -> None:
    """Give every hooked site the LayerNorm of its own layer; ``adapters`` gives all the last's."""
    interface = getattr(encoder, "adapter_interface", None)
    if interface is None:
        return
    norms = {"mh_adapter": interface.layer_ln_1, "output_adapter": interface.layer_ln_2}
    for _, layer in encoder.iter_layers():
        for module in layer.modules():
            hooks: dict[int, Any] = module._forward_hooks
            for key, hook in list(hooks.items()):
                if getattr(hook, "func", None) is hook_fn:
                    site = hook.args[0]
                    norm = norms.get(site.location_key)
                    own = partial(layer.get_submodule, norm) if norm else None
                    call: Any = hook_fn
                    hooks[key] = partial(call, site, own)


def bottleneck_layers(encoder: Any) -> Iterator[tuple[int, str, BottleneckLayer]]:
    """All adapter sites as (layer index, location key, layer), bottom up, attention first."""
    for index, layer in encoder.iter_layers():
        for module in layer.modules():
            if isinstance(module, BottleneckLayer):
                yield index, module.location_key, module


@contextlib.contextmanager
def set_aside(encoder: nn.Module) -> Iterator[Callable[[str], None]]:
    """Gives what takes the modules of an adapter, by its name, out of ``encoder``; back at the end.

    ``adapters`` goes through everything in an encoder for every adapter that is added: of K that
    are loaded one after the other, through K² / 2 of them unless those that are there step aside.
    """
    aside: list[tuple[nn.ModuleDict, str, nn.Module]] = []

    def take(name: str) -> None:
        places = [m for m in encoder.modules() if isinstance(m, nn.ModuleDict) and name in m]
        aside.extend((place, name, place.pop(name)) for place in places)

    try:
        yield take
    finally:
        for place, name, module in aside:
            place[name] = module


def freeze(module: nn.Module) -> None:
    """Take every parameter of ``module`` out of training."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)


def adapter_parameters(encoder: nn.Module, name: str) -> dict[str, torch.nn.Parameter]:
    """The parameters that belong to the adapter ``name``, by their name inside the encoder.

    Covers everything ``adapters`` calls an adapter: bottlenecks, LoRA, prefixes, ReFT, shared
    parameters. Names of ours contain no dot and none is a prefix of another, so matching the
    dotted part is exact.
    """
    part = f".{name}."
    return {key: parameter for key, parameter in encoder.named_parameters() if part in f".{key}."}
