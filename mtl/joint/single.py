"""Joint methods that train a stage-one method once, on all tasks: Adapter-m, full-ft-m."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mtl.joint.joint_method import TRAINING, JointMethod, Shared
from mtl.joint.sampler import Sampling
from mtl.methods import METHODS, RunFacts
from mtl.methods import attach as attach_method
from mtl.methods import load as load_method
from mtl.methods.full_ft import FullFineTuningSettings
from mtl.methods.pfeiffer import PfeifferSettings


@dataclass(frozen=True)
class AdapterMSettings(Sampling, PfeifferSettings):
    """One bottleneck adapter for all tasks: ``u = U·act(D·z + c) + b`` at every site.

    With D hidden and R bottleneck: D is (R,D), c (R,), U (D,R), b (D,);
    L·(2·D·R + R + D) parameters, whatever the number of tasks (Frohmann et al. 2024).
    The attributes are those of ``pfeiffer`` and of :class:`Sampling`.
    """

    def __post_init__(self) -> None:
        Sampling.__post_init__(self)
        PfeifferSettings.__post_init__(self)


@dataclass(frozen=True)
class FullFTMSettings(Sampling, FullFineTuningSettings):
    """All weights of the base, shared by all tasks (Frohmann et al. 2024, arXiv:2310.01217).

    The attributes are those of ``full-ft`` and of :class:`Sampling`.
    """


def shared_method(
    name: str, single: str, settings: type, lr: float, summary: str, citation: str
) -> JointMethod:
    """``single``, a stage-one method, trained once on all tasks.

    Args:
        settings: its settings with :class:`~mtl.joint.sampler.Sampling` before them.
        lr: learning rate, the rest as :data:`~mtl.joint.joint_method.TRAINING`.
    """
    method = METHODS.get(single)

    def attach(
        encoder: Any, tasks: Sequence[str], settings: Any, name: str, request: RunFacts
    ) -> Shared:
        return Shared(attach_method(encoder, method, settings, name, request))

    def load(encoder: Any, tasks: Sequence[str], settings: Any, name: str, folder: Path) -> Shared:
        return Shared(load_method(encoder, method, settings, name, folder, active=True))

    return JointMethod(
        name=name,
        settings=settings,
        summary=summary,
        citation=citation,
        attach=attach,
        load=load,
        training=replace(TRAINING, values={**TRAINING.values, "lr": lr}),
        placement=method.placement,
        weights=method.weights(settings()),
        adds=method.adds,
    )


ADAPTER_M = shared_method(
    "adapter-m",
    "pfeiffer",
    AdapterMSettings,
    3e-4,
    "one bottleneck adapter shared by all tasks, a head per task",
    "Frohmann et al. 2024, ScaLearn, arXiv:2310.01217",
)
FULL_FT_M = shared_method(
    "full-ft-m",
    "full-ft",
    FullFTMSettings,
    2e-5,
    "all weights of the base trained on all tasks, a head per task",
    "Frohmann et al. 2024, ScaLearn, arXiv:2310.01217",
)
