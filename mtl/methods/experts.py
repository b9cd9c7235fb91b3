"""Mixtures of linear experts: routed at random while training, averaged once at the end.

(Wang et al. 2022, AdaMix, arXiv:2205.12410)

==========  ==========================================================================
evaluation  with E experts ``W_e x + b_e``
==========  ==========================================================================
level 3     the mean of the experts' weights: ``mean(W) x + mean(b)``; merged once
level 1     every sentence takes one expert at random
level 0     every token takes one expert at random
==========  ==========================================================================

While training, each mixture draws one expert for the whole batch (for each half of it in the
two-pass consistency loss) from torch's CPU generator. The reference draws for mixtures of one
expert, too; we do not. Weights of all experts are one tensor, so an expert that was not drawn gets
a gradient of zeros: momentum and weight decay act on it, as in the reference's version of torch
(there from its first draw on, here from the first step).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from mtl.backbone.cores import CORES
from mtl.errors import RequestError
from mtl.lazy import later
from mtl.methods.core import core_config
from mtl.methods.library import activate
from mtl.methods.method import Method
from mtl.methods.placement import signature_of

if TYPE_CHECKING:
    from mtl.backbone.injection import CoreConfig

LEVELS = (0, 1, 3)


def check_level(level: int) -> None:
    """Refuse the levels that the reference names and does not have.

    Raises:
        RequestError: not 0, 1 or 3.
    """
    if level not in LEVELS:
        raise RequestError(
            f"inference_level={level} does not exist: 0 routes every token, 1 every sentence at "
            "random, 3 averages the experts (2 and 4 crash in the reference, too)."
        )


CORES["gelu"] = later("mtl.methods.modules.experts:gelu_core")


def mixture_method(
    name: str, settings: type, *, core: str, merged: str, build: Any, **rest: Any
) -> Method:
    """A method whose core holds mixtures, and which is merged into core ``merged`` at the end.

    The down map has ``merge() → down``; an up map that is a :class:`Mixture` merges by itself. The
    settings have ``bottleneck``, ``placement``, ``inference_level`` and ``consistency``.
    """
    CORES[core] = build
    return Method(
        name=name,
        settings=settings,
        attach=partial(later("mtl.methods.modules.experts:attach"), name, core),
        load=partial(later("mtl.methods.modules.experts:load"), name, core, merged),
        activate=activate,
        placement=lambda chosen, width: signature_of(chosen.placement),
        composes="bottleneck",
        **rest,
    )


def config_of(core: str, settings: Any, hidden_size: int) -> CoreConfig:
    return core_config(core, settings, settings.bottleneck, hidden_size)
