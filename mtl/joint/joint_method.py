"""What a joint method is: one model for several tasks, trained together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.engine.settings import Training
from mtl.registry import Registry

if TYPE_CHECKING:
    from mtl.methods import RunFacts, Tuned


TRAINING = Training(
    "CPJKU/ScaLearn, src/scripts/JOINT_MTL",
    {
        "lr": 3e-4,
        "max_steps": 375_000,
        "warmup": 0.1,
        "eval_every": 7500,
        "patience": "75000 steps",
    },
)
"""How the ScaLearn comparison trains its joint baselines."""


def _all_alike(task: str) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass(frozen=True)
class Shared:
    """A joint method attached to an encoder.

    Attributes:
        tuned: what trains (heads excluded) and how it is stored.
        use: task id → a context in which the encoder computes for that task; entered around every
            forward pass. What only depends on the task is made once in it, for all layers.
    """

    tuned: Tuned
    use: Callable[[str], AbstractContextManager[None]] = _all_alike


@dataclass(frozen=True)
class JointMethod:
    """A way to train one model on several tasks.

    Attributes:
        name: what ``--method`` takes.
        settings: frozen dataclass of its settings, a :class:`~mtl.joint.sampler.Sampling`.
        summary, citation: for ``mtl.methods ls``.
        attach: (encoder, task ids, settings, name, request) → :class:`Shared`: adds the method to a
            frozen encoder, trainable and active. Draws from torch's global generator.
        load: (encoder, task ids, settings, name, folder) → :class:`Shared`: adds what is stored in
            ``folder``, frozen and active.
        defaults: values by which this name differs from the dataclass' defaults.
        training: the run settings of its paper.
        placement: (settings, hidden size) → signature of the adapter's sites, None without.
        weights: how its entry stores weights, as in a manifest.
        adds: whether its parameters come on top of the base's (False: it trains the base's own).
    """

    name: str
    settings: type
    summary: str
    citation: str
    attach: Callable[[Any, Sequence[str], Any, str, RunFacts], Shared]
    load: Callable[[Any, Sequence[str], Any, str, Path], Shared]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    training: Training = field(default_factory=Training)
    placement: Callable[[Any, int], Mapping[str, Any]] | None = None
    weights: str = "adapters"
    adds: bool = True


JOINT: Registry[JointMethod] = Registry("joint method", JointMethod, "mtl.joint")
for _name, _target in (
    ("hyperformer", "hyperformer:HYPERFORMER"),
    ("hyperformer++", "hyperformer:HYPERFORMER_PP"),
    ("propetl-m", "propetl_m:METHOD"),
    ("adapter-m", "single:ADAPTER_M"),
    ("full-ft-m", "single:FULL_FT_M"),
):
    JOINT.add(_name, f"mtl.joint.{_target}")
