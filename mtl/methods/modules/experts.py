"""The torch side of :mod:`mtl.methods.experts`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from mtl.backbone.draws import PerStep
from mtl.backbone.injection import CoreConfig, adapter_parameters
from mtl.engine import Group
from mtl.methods.consistency import consistency_loss
from mtl.methods.core import core_modules
from mtl.methods.experts import config_of
from mtl.methods.files import fill, read_own, save_own
from mtl.methods.library import activate, trainable
from mtl.methods.modules.adakron import bert_linear, filled_linear
from mtl.methods.source import PlainSource
from mtl.methods.tuned import Tuned

if TYPE_CHECKING:
    from mtl.methods.method import RunFacts


@dataclass
class Routing:
    """How the mixtures of one adapter choose experts.

    Attributes:
        level: of evaluation.
        passes: equal parts of a training batch that draw for themselves.
        generator: of evaluation at levels 0 and 1; made anew for every evaluation.
    """

    level: int = 3
    passes: int = 1
    generator: torch.Generator | None = None


class Mixture(nn.Module):
    """E linear maps: (B,T,in) → (B,T,out). Each expert starts as an N(0, 0.02) draw of its own."""

    def __init__(self, experts: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(experts, outputs, inputs).normal_(std=0.02))
        self.bias = nn.Parameter(torch.zeros(experts, outputs))
        self.routing = Routing()
        self._held: tuple[Tensor, Tensor] | None = None
        self._chosen: PerStep[list[int]] = PerStep()

    @property
    def experts(self) -> int:
        """E."""
        return self.weight.shape[0]

    def mean(self) -> tuple[Tensor, Tensor]:
        """Weight (out,in) and bias (out,) of the averaged expert."""
        return self.weight.mean(0), self.bias.mean(0)

    def dense(self) -> tuple[Tensor, Tensor]:
        """What stage two sees of an up-projection: the averaged expert."""
        return self.mean()

    def hold(self, held: bool) -> None:
        """Average once and keep that, or average in every call again."""
        self._held = self.mean() if held else None

    def linear(self) -> nn.Linear:
        """The averaged expert as a linear layer of its own."""
        return filled_linear(*self.mean())

    def forward(self, x: Tensor) -> Tensor:
        routing = self.routing
        if self.experts == 1:
            return functional.linear(x, self.weight[0], self.bias[0])
        if self.training:
            chosen = self._chosen(lambda: torch.randint(self.experts, (routing.passes,)).tolist())
            parts = [
                functional.linear(part, self.weight[expert], self.bias[expert])
                for part, expert in zip(x.chunk(routing.passes), chosen, strict=True)
            ]
            return parts[0] if len(parts) == 1 else torch.cat(parts)
        if routing.level == 3:
            return functional.linear(x, *(self._held or self.mean()))
        shape = x.shape[:-1] if routing.level == 0 else (x.shape[0], *[1] * (x.ndim - 2))
        drawn = torch.randint(self.experts, shape, generator=routing.generator).to(x.device)
        everyone = torch.einsum("...i,eoi->...eo", x, self.weight) + self.bias
        index = drawn.expand(x.shape[:-1])[..., None, None].expand(
            *x.shape[:-1], 1, self.bias.shape[1]
        )
        return everyone.gather(-2, index).squeeze(-2)


class GeluDown(nn.Module):
    """``GELU(W z + b)``, exact: (B,T,D) → (B,T,R). The down map of merged AdaMix."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, z: Tensor) -> Tensor:
        return functional.gelu(self.linear(z))

    def source(self, weight: Tensor, bias: Tensor) -> PlainSource:
        """The frozen view for stage two."""
        own = self.linear
        return PlainSource(
            own.weight.detach().clone(), own.bias.detach().clone(), "gelu", weight, bias
        )


def gelu_core(config: CoreConfig, hidden_size: int, size: int) -> tuple[nn.Module, nn.Module]:
    """A plain bottleneck with the exact GELU, weights N(0, 0.02)."""
    return GeluDown(bert_linear(hidden_size, size)), bert_linear(size, hidden_size)


def _own(encoder: Any, name: str) -> dict[str, Tensor]:
    """The adapter's tensors as they are now, by name without the adapter's own."""
    found: dict[str, Tensor] = dict(adapter_parameters(encoder, name))
    return {key.replace(f".{name}.", "."): value for key, value in found.items()}


def mixtures(encoder: Any, name: str) -> list[Mixture]:
    """All mixtures of the adapter ``name``."""
    sites = core_modules(encoder, name).values()
    return [part for site in sites for part in site.modules() if isinstance(part, Mixture)]


def _evaluating(encoder: Any, name: str, routing: Routing) -> Callable[[], Any]:
    @contextmanager
    def context() -> Iterator[None]:
        found = mixtures(encoder, name)
        routing.generator = torch.Generator().manual_seed(0)  # twice is the same
        with torch.no_grad():
            for mixture in found:
                mixture.hold(True)
        try:
            yield
        finally:
            for mixture in found:
                mixture.hold(False)
            routing.generator = None

    return context


def merge(encoder: Any, name: str) -> None:
    """Replace every mixture of the adapter by its average."""
    for site in core_modules(encoder, name).values():
        training = site.training
        site.adapter_down = site.adapter_down.merge()
        if isinstance(site.adapter_up, Mixture):
            site.adapter_up = site.adapter_up.linear()
        site.train(training)


def attach(
    method: str, core: str, encoder: Any, settings: Any, name: str, request: RunFacts
) -> Tuned:
    width = encoder.config.hidden_size
    encoder.add_adapter(name, config=config_of(core, settings, width))
    activate(encoder, name)
    routing = Routing(settings.inference_level)
    for mixture in mixtures(encoder, name):
        mixture.routing = routing
    parameters = trainable(encoder, name)
    # Stacked biases are matrices; they do not decay for all that.
    biases = {key: value for key, value in parameters.items() if key.endswith("bias")}
    weights = {key: value for key, value in parameters.items() if key not in biases}

    def finish() -> None:
        if settings.inference_level == 3:
            merge(encoder, name)

    return Tuned(
        [Group("method", weights), Group("bias", biases, weight_decay=0.0)],
        lambda folder, base: save_own(folder, method, settings, encoder, _own(encoder, name), base),
        caches=(_evaluating(encoder, name, routing),),
        loss=partial(consistency_loss, routing) if settings.consistency else None,
        finish=finish,
        # Routed levels keep all experts.
        merged=_merged_size(parameters) if settings.inference_level == 3 else None,
    )


def _merged_size(parameters: dict[str, nn.Parameter]) -> int:
    """Scalars that are left when every mixture has become one linear layer."""
    sizes = 0
    for key, value in parameters.items():
        mixed = value.ndim > (1 if key.endswith("bias") else 2)
        sizes += value[0].numel() if mixed else value.numel()
    return sizes


def load(
    method: str, core: str, merged: str, encoder: Any, settings: Any, name: str, folder: Path
) -> Tuned:
    stored = read_own(folder, method, encoder)
    chosen = merged if settings.inference_level == 3 else core
    encoder.add_adapter(name, config=config_of(chosen, settings, encoder.config.hidden_size))
    routing = Routing(settings.inference_level)
    for mixture in mixtures(encoder, name):
        mixture.routing = routing
    own = _own(encoder, name)
    for value in own.values():
        value.requires_grad_(False)
    fill(method, own, stored)
    return Tuned(
        [],
        lambda target, base: save_own(target, method, settings, encoder, own, base),
        caches=(_evaluating(encoder, name, routing),),
    )
