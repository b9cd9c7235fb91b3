"""HyperFormer and HyperFormer++: a small network writes every layer's adapter for every task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mtl.errors import RequestError
from mtl.joint.joint_method import TRAINING, JointMethod
from mtl.joint.sampler import Sampling
from mtl.joint.written import SiteSettings, placement
from mtl.lazy import later


@dataclass(frozen=True)
class HyperFormerSettings(Sampling, SiteSettings):
    """Generated adapters after every FFN (Karimi Mahabadi et al. 2021, arXiv:2106.04489).

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


def _method(name: str, summary: str, **defaults: Any) -> JointMethod:
    return JointMethod(
        name=name,
        settings=HyperFormerSettings,
        summary=summary,
        citation="Karimi Mahabadi et al. 2021, HyperFormer, arXiv:2106.04489, as in the ScaLearn "
        "comparison (Frohmann et al. 2024, arXiv:2310.01217)",
        attach=later("mtl.joint.modules.hyperformer:attach"),
        load=later("mtl.joint.modules.hyperformer:load"),
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
