"""ScaLearn: learned scales on the outputs of frozen source adapters.

At every site, with z the sources' common input, h the residual and x the block's input::

    u_k = U_k act(D_k z + c_k) + b_k
    out = LN( Σ_k omega_k ⊙ u_k  +  h  +  x )

======================  =====================  =====================  ==================
name                    omega                  parameters (pfeiffer)  dropout on omega
======================  =====================  =====================  ==================
``scalearn``            (K,D) per layer        L·K·D                  0.3
``scalearn-uniform``    (K,1) per layer        L·K                    0.3
``scalearn++``          (K,D) for all layers   K·D                    0.3
``scalearn-uniform++``  (K,1) for all layers   K                      0.0
``average``             1/K, fixed             0                      –
======================  =====================  =====================  ==================

Low-rank sources (LoRA and its kin) have a site per layer and linear module, and D is then that
module's output width (:mod:`mtl.compose.low_rank`).

No constraint, no bias, no activation. Each entry starts as N(init_scale/K, init_std). Dropout acts
on omega itself: one mask per site and optimiser step, the same for all rows and tokens
(Frohmann et al. 2024, arXiv:2310.01217; specs/composition_methods §1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as functional
from adapters import AdapterConfig
from torch import Tensor, nn

from mtl.backbone.draws import PerStep
from mtl.backbone.injection import FusionSite
from mtl.compose.bank import Bank
from mtl.compose.composition import Composed, Composition
from mtl.compose.low_rank import add_linear_sites, are_low_rank
from mtl.compose.sites import add_sites, load_stored, register
from mtl.engine.settings import Training
from mtl.errors import RequestError
from mtl.methods.source import PlainSource
from mtl.zoo.composition import NORMALISE, OMEGA, SourceWeights, normalised, weigh


@dataclass(frozen=True)
class ScaLearnSettings:
    """Settings of the ScaLearn family.

    Attributes:
        per: ``dim`` for an omega per source and dimension, ``source`` for a scalar per source.
        share_layers: one omega for all layers (the ++ forms) instead of one per layer.
        layer_groups: one omega for each of so many equal runs of layers; 0 leaves it to
            ``share_layers``.
        learn: False keeps omega at its start, and only the head learns.
        init_scale: mean of omega at the start, times K.
        init_std: standard deviation at the start.
        dropout: probability of dropping an entry of omega while training.
        normalise: ``none``; ``mean`` divides omega by its sum over the sources, ``softmax`` takes
            the softmax over them (the paper's ablations, there without dropout).
        regularise: weight λ of ``λ/K · Σ_sites Σ_k (1 − mean_d omega_kd)²``, which pulls every
            source's mean scale to 1 (specs/composition_methods §1.7). An omega that sites share
            counts once, by its mean like the others (a reference takes its sum over d).
    """

    per: str = "dim"
    share_layers: bool = False
    layer_groups: int = 0
    learn: bool = True
    init_scale: float = 2.0
    init_std: float = 1e-3
    dropout: float = 0.3
    normalise: str = "none"
    regularise: float = 0.0

    def __post_init__(self) -> None:
        if self.per not in {"dim", "source"}:
            raise RequestError(f"per={self.per!r} must be 'dim' or 'source'.")
        if self.normalise not in NORMALISE:
            raise RequestError(
                f"normalise={self.normalise!r} must be one of {', '.join(NORMALISE)}."
            )
        if not 0 <= self.dropout < 1:
            raise RequestError(f"dropout={self.dropout} must be at least 0 and below 1.")
        if self.init_std < 0:
            raise RequestError(f"init_std={self.init_std} must not be negative.")
        if self.regularise < 0:
            raise RequestError(f"regularise={self.regularise} must not be negative.")
        if self.layer_groups < 0 or (self.share_layers and self.layer_groups > 1):
            raise RequestError(
                f"layer_groups={self.layer_groups} must be at least 0, and with share_layers=true "
                "(the ++ forms) there is one group only."
            )


@dataclass(eq=False)
class ScaLearnFusion(AdapterConfig):
    """The config under which ``adapters`` knows a ScaLearn block; our settings live elsewhere.

    It has none of AdapterFusion's fields, so that stock code that meets it fails instead of
    building an untrained attention.
    """

    architecture: str = "mtl_scalearn"


class ScaLearnSite(FusionSite):
    """ScaLearn at one site: ``Σ_k omega_k ⊙ u_k``, by two products (see :mod:`mtl.compose.bank`).

    omega is bound by :meth:`bind`, because the ++ forms share one tensor among all sites; it is
    registered where it is owned, not here.

    Attributes:
        combine: what makes the bank's one source of the encoder's (a soup), None where the bank
            holds the sources themselves.
    """

    def __init__(self, bank: Bank) -> None:
        super().__init__()
        self.bank = bank
        self._omega: list[Tensor] = []
        self._settings = ScaLearnSettings()
        self._folded: tuple[Tensor, Tensor] | None = None
        self._mask: PerStep[Tensor] = PerStep()
        self.combine: Callable[[Sequence[PlainSource]], PlainSource] | None = None

    def bind(self, omega: Tensor, settings: ScaLearnSettings) -> None:
        """Use ``omega`` (K,D) or (K,1) from now on."""
        self._omega = [omega]
        self._settings = settings
        self._folded = None

    def effective(self) -> Tensor:
        """omega as it enters the sum: normalised, then, while training, dropped out.

        What is stored is omega itself; :func:`mtl.zoo.composition.normalised` reads it likewise.
        """
        omega = self._omega[0]
        if self._settings.normalise == "mean":
            omega = omega / omega.sum(0, keepdim=True)
        elif self._settings.normalise == "softmax":
            omega = omega.softmax(0)
        dropout = self._settings.dropout
        if not self.training or not dropout:
            return omega
        return omega * self._mask(lambda: functional.dropout(torch.ones_like(omega), dropout, True))

    def forward(self, z: Tensor) -> Tensor:
        weight, bias = self._folded or self.bank.fold(self.effective())
        return self.bank.mix(z, weight, bias)

    def hold(self) -> None:
        """Fold once and use the result until :meth:`release`."""
        with torch.no_grad():
            self._folded = self.bank.fold(self.effective())

    def release(self) -> None:
        """Fold in every forward again."""
        self._folded = None


register(ScaLearnFusion, ScaLearnSite)


def attach(encoder: Any, sources: Sequence[str], settings: ScaLearnSettings) -> Composed:
    """Put a ScaLearn composition of the adapters named ``sources`` into ``encoder``; active.

    Drawing of omega uses torch's global generator, which the run has seeded.

    Raises:
        RequestError: a source without sites (then nothing could be composed), sources of two
            kinds, or more layer groups than layers.
    """
    owner = _owners(settings, encoder.config.num_hidden_layers)
    sites: dict[str, ScaLearnSite]
    if are_low_rank(encoder, sources):
        sites = add_linear_sites(encoder, sources, ScaLearnSite)
    else:
        sites = add_sites(encoder, sources, ScaLearnFusion())
    omegas: dict[str, nn.Parameter] = {}
    for key, site in sites.items():
        name = owner(key)
        if name not in omegas:
            width = site.bank.up.shape[1] if settings.per == "dim" else 1
            start = torch.empty(len(sources), width, device=site.bank.up.device)
            start.normal_(settings.init_scale / len(sources), settings.init_std)
            omegas[name] = nn.Parameter(start, requires_grad=settings.learn)
        site.bind(omegas[name], settings)
    # One registration per omega, on the encoder, so that `.to(device)` moves it with the rest.
    encoder.register_module(
        "omega", nn.ParameterDict({k.replace(".", "_"): p for k, p in omegas.items()})
    )

    @contextmanager
    def evaluating() -> Iterator[None]:
        for site in sites.values():
            site.hold()
        try:
            yield
        finally:
            for site in sites.values():
                site.release()

    def penalty() -> Mapping[str, Tensor]:
        away = torch.stack([(1 - omega.mean(1)).square().sum() for omega in omegas.values()])
        return {"omega_reg": settings.regularise / len(sources) * away.sum()}

    named = {f"{OMEGA}.{key}": parameter for key, parameter in omegas.items()}
    return Composed(
        parameters=named if settings.learn else {},
        tensors=lambda: {name: omega.detach().clone() for name, omega in named.items()},
        load=lambda tensors: load_stored(OMEGA, named, tensors),
        penalties=(penalty,) if settings.regularise and settings.learn else (),
        evaluating=evaluating,
    )


def shares(composed: Composed, settings: ScaLearnSettings) -> SourceWeights:
    """omega as it enters the sum, the same for every input.

    Raises:
        ZooError: a weight is not finite, so that it cannot be stored.
    """
    used = {
        name.partition(".")[2]: normalised(omega.double().cpu().numpy(), settings.normalise)
        for name, omega in composed.tensors().items()
    }
    return weigh(OMEGA, used)


def _owners(settings: ScaLearnSettings, layers: int) -> Callable[[str], str]:
    """Site key (``3`` or ``3.mh_adapter``) → name of the omega that it uses.

    ``shared`` for all layers, ``3`` for one, ``2-3`` for a group of them; with the location behind
    it where a layer has several sites.
    """
    groups = 1 if settings.share_layers else settings.layer_groups
    if groups > layers:
        raise RequestError(f"layer_groups={groups} is more than the encoder's {layers} layers.")

    def owner(key: str) -> str:
        layer, dot, location = key.partition(".")
        if groups == 1:
            return f"shared{dot}{location}"
        if not groups:
            return key
        group = int(layer) * groups // layers
        inside = [index for index in range(layers) if index * groups // layers == group]
        span = f"{inside[0]}-{inside[-1]}" if len(inside) > 1 else layer
        return f"{span}{dot}{location}"

    return owner


_CITE = "Frohmann et al. 2024, ScaLearn, arXiv:2310.01217; spec composition §1"


def _composition(name: str, summary: str, **defaults: Any) -> Composition:
    return Composition(
        name,
        ScaLearnSettings,
        defaults,
        attach,
        shares,
        summary,
        _CITE,
        training=Training(
            "spec composition §1.5", {"lr": 6e-3, "epochs": 30, "patience": "30 epochs"}
        ),
    )


SCALEARN = _composition("scalearn", "a learned scale per source, dimension and layer")
SCALEARN_UNIFORM = _composition(
    "scalearn-uniform", "a learned scale per source and layer", per="source"
)
SCALEARN_PP = _composition(
    "scalearn++", "a learned scale per source and dimension, for all layers", share_layers=True
)
SCALEARN_UNIFORM_PP = _composition(
    "scalearn-uniform++",
    "a learned scale per source, for all layers",
    per="source",
    share_layers=True,
    dropout=0.0,
)
AVERAGE = _composition(
    "average",
    "the mean of the sources' outputs; only the head learns",
    per="source",
    share_layers=True,
    learn=False,
    init_scale=1.0,
    init_std=0.0,
    dropout=0.0,
)
