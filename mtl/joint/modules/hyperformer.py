"""The torch side of :mod:`mtl.joint.hyperformer`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from mtl.engine import Group
from mtl.joint.hyperformer import HyperFormerSettings
from mtl.joint.joint_method import Shared
from mtl.joint.modules.written import Adapter, Writer, add_sites
from mtl.joint.written import bottleneck_of
from mtl.methods import RunFacts, Tuned
from mtl.methods.files import fill, read_own, save_own
from mtl.methods.modules.adakron import bert_linear

CODE_NORM_EPS = 1e-6


class HyperNet(nn.Module):
    """Writes the adapters of all L layers for a task, in one product.

    The generators of one set stand in one matrix, (P,C) with P = 2·R·D + R + 3·D, in the order of
    :class:`~mtl.joint.written.Adapter`; ``weight`` is (S,P,C) and ``bias`` (S,P), with S = 1 in ++,
    else S = L.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        layers: int,
        width: int,
        size: int,
        settings: HyperFormerSettings,
    ) -> None:
        super().__init__()
        self.layers, self.width, self.size = layers, width, size
        self._place = {task: index for index, task in enumerate(tasks)}
        # One parameter each: a task that a batch is not of gets no gradient and does not move.
        embedding, sets = settings.embedding, 1 if settings.shared_generators else layers
        self.tasks = nn.ParameterList(torch.randn(embedding) for _ in tasks)
        self.layer_ids: nn.Parameter | None = None
        inputs = embedding
        if settings.shared_generators:
            self.layer_ids = nn.Parameter(torch.empty(layers, embedding).normal_(std=0.02))
            inputs = 2 * embedding
        self.first = bert_linear(inputs, settings.hidden)
        self.second = bert_linear(settings.hidden, settings.code)
        self.norm = nn.LayerNorm(settings.code, eps=CODE_NORM_EPS)
        numbers = sum(self.lengths)
        self.weight = nn.Parameter(torch.empty(sets, numbers, settings.code).normal_(std=0.02))
        self.bias = nn.Parameter(torch.zeros(sets, numbers))

    @property
    def lengths(self) -> list[int]:
        """How many numbers each part of :class:`~mtl.joint.written.Adapter` has."""
        product = self.size * self.width
        return [product, self.size, product, self.width, self.width, self.width]

    def codes(self, task: str) -> Tensor:
        """The codes of a task, (L,C) in ++, else the one of all layers, (1,C)."""
        vector = self.tasks[self._place[task]][None]
        if self.layer_ids is not None:
            vector = torch.cat([vector.expand(self.layers, -1), self.layer_ids], dim=1)
        return self.norm(self.second(torch.relu(self.first(vector))))

    def forward(self, task: str) -> list[Adapter]:
        """The adapters of ``task``, bottom up."""
        codes = self.codes(task)
        if self.layer_ids is not None:
            rows = functional.linear(codes, self.weight[0], self.bias[0])
        else:
            rows = (self.weight.flatten(0, 1) @ codes[0]).view_as(self.bias) + self.bias
        found = []
        for row in rows.unbind(0):
            down, down_bias, up, up_bias, gain, shift = row.split(self.lengths)
            down, up = down.view(self.size, self.width), up.view(self.width, self.size)
            found.append(Adapter(down, down_bias, up, up_bias, gain, shift))
        return found

    def named(self) -> dict[str, nn.Parameter]:
        """All parameters, task embeddings by the task's id."""
        found = {
            name: value for name, value in self.named_parameters() if not name.startswith("tasks.")
        }
        return found | {f"task.{task}": self.tasks[at] for task, at in self._place.items()}


def _install(
    encoder: Any, tasks: Sequence[str], settings: HyperFormerSettings, name: str
) -> tuple[HyperNet, Writer]:
    sites = add_sites(encoder, settings, name)
    width = encoder.config.hidden_size
    net = HyperNet(tasks, len(sites), width, bottleneck_of(settings, width), settings)
    encoder.register_module(f"hypernet_{name}", net)
    return net, Writer(net, sites)


def _shared(
    encoder: Any, settings: HyperFormerSettings, net: HyperNet, writer: Writer, groups: list[Group]
) -> Shared:
    def save(folder: Path, base: str) -> None:
        save_own(folder, "hyperformer", settings, encoder, net.named(), base)

    return Shared(Tuned(groups, save, caches=(writer.caching,)), writer.use)


def attach(
    encoder: Any, tasks: Sequence[str], settings: HyperFormerSettings, name: str, _: RunFacts
) -> Shared:
    """Add a new hypernetwork and the sites it writes, active and trainable."""
    net, writer = _install(encoder, tasks, settings, name)
    net.requires_grad_(True)
    own = net.named()
    # The generators' biases are a matrix here, one row per set; biases never decay.
    biases = {"bias": own.pop("bias")}
    groups = [Group("method", own), Group("generated", biases, weight_decay=0.0)]
    return _shared(encoder, settings, net, writer, groups)


def load(
    encoder: Any, tasks: Sequence[str], settings: HyperFormerSettings, name: str, folder: Path
) -> Shared:
    """Add the stored hypernetwork, frozen and active.

    Raises:
        ZooError: the files are damaged or do not fit.
    """
    stored = read_own(folder, "hyperformer", encoder)
    net, writer = _install(encoder, tasks, settings, name)
    net.requires_grad_(False)
    fill("hyperformer", net.named(), stored)
    return _shared(encoder, settings, net, writer, [])
