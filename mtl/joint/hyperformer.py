"""HyperFormer and HyperFormer++: a small network writes every layer's adapter for every task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from mtl.engine import Group
from mtl.errors import RequestError
from mtl.joint.joint_method import TRAINING, JointMethod, Shared
from mtl.joint.sampler import Sampling
from mtl.joint.written import Adapter, SiteSettings, Writer, add_sites, bottleneck_of, placement
from mtl.methods import RunFacts, Tuned
from mtl.methods.adakron import bert_linear
from mtl.methods.files import fill, read_own, save_own

CODE_NORM_EPS = 1e-6


@dataclass(frozen=True)
class HyperFormerSettings(Sampling, SiteSettings):
    """Generated adapters after every FFN (specs/composition_methods §5).

    A code ``e = LN(W2 relu(W1 v + b1) + b2)`` of C numbers is made from the task's embedding v (E),
    in ++ from task and layer embedding [v_t; v_l] (2E). Linear generators turn it into the adapter
    of layer l: down (R,D), its bias (R), up (D,R), its bias (D), gain and shift (D) of a LayerNorm:
    ``u = up·act(down·z + c) + b``, ``u' = gain ⊙ norm(u) + shift`` (the gain is not 1 + gain), and
    the layer's output is ``LN(u' + h + x)``. HyperFormer has a set of generators per layer and no
    layer embedding; ++ has one set. Linear weights and layer embeddings start as N(0, 0.02), task
    embeddings as N(0, 1), biases at zero.

    Attributes:
        shared_generators: one set for all layers, with layer embeddings (++).
        embedding: E.
        hidden: units between W1 and W2.
        code: C.
        activation: act.
    """

    shared_generators: bool = False
    embedding: int = 512
    hidden: int = 128
    code: int = 64
    activation: str = "gelu_new"

    def __post_init__(self) -> None:
        Sampling.__post_init__(self)
        SiteSettings.__post_init__(self)
        for name in ("embedding", "hidden", "code"):
            if getattr(self, name) < 1:
                raise RequestError(f"{name}={getattr(self, name)} must be at least 1.")


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


def _method(name: str, summary: str, **defaults: Any) -> JointMethod:
    return JointMethod(
        name=name,
        settings=HyperFormerSettings,
        summary=summary,
        citation="Karimi Mahabadi et al. 2021, HyperFormer, arXiv:2106.04489, as in the ScaLearn "
        "comparison; spec composition §5",
        attach=attach,
        load=load,
        training=TRAINING,
        defaults=defaults,
        placement=placement,
    )


HYPERFORMER = _method(
    "hyperformer", "adapters written per task by one set of generators for each layer"
)
HYPERFORMER_PP = _method(
    "hyperformer++",
    "adapters written per task and layer by one set of generators",
    shared_generators=True,
)
