"""From the tensors of a ``peft`` adapter to factors of a LoRA, with the error of every site.

LoRA and AdaLoRA are a product of two matrices already; ``peft`` is not needed for them. Of other
kinds, ``peft`` itself is asked what its module adds: with the unit vectors as input in fp64,
``module(I) − base(I)`` is the change Δ (out,in) that it makes, magnitudes (DoRA) and dependence on
the base's weight (MiSS, *bat*) included. ``Δ ≈ up · down`` by its singular values, at the
smallest rank that is exact in fp32, or at the largest that is allowed where the error stays below
what is.

Not ``peft.convert_to_lora``: that leaves DoRA's magnitudes out without a word, finds the rank
for a share of the energy in fp32, where shares below 1e-7 are lost, and says no error. What it does
convert comes to the same here (a test holds the two against each other).
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from mtl.backbone.arch import arch_of
from mtl.backbone.bounded import bounded
from mtl.backbone.linear import Part, linear_paths, linear_sites
from mtl.errors import RequestError, ZooError
from mtl.hub.peft_config import PeftConfig
from mtl.hub.peft_tensors import PREFIX, PeftTensors, unused
from mtl.limits import current
from mtl.methods.lora import KNOWN
from mtl.methods.low_rank import Factors
from mtl.methods.peft_files import require_peft
from mtl.words import counted, printable

EXACT = 1e-6
"""A relative error that fp32 makes anyway."""


@dataclass(frozen=True)
class Bounds:
    """What a conversion may cost and lose.

    Attributes:
        rank: at most this rank per module, where the adapter is no product of two matrices itself.
        error: ``‖Δ − up·down‖ / ‖Δ‖`` (Frobenius) of a module may be at most this.
    """

    rank: int = 256
    error: float = 1e-3

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise RequestError(f"--rank {self.rank} must be at least 1.")
        if not 0 <= self.error < 1:
            raise RequestError(f"--max-error {self.error} must be from 0 to below 1.")


@dataclass(frozen=True)
class Converted:
    """An adapter as a LoRA.

    Attributes:
        sites: site (``"3.q"``) of every layer → factors in fp32, all of one rank.
        rank: that rank, R.
        alpha: the scale of the factors times R.
        errors: site → (its own rank, relative error), of the sites that are changed.
        by: what converted it: ``mtl`` alone, or ``peft`` with its version.
    """

    sites: Mapping[str, Factors]
    rank: int
    alpha: float
    errors: Mapping[str, tuple[int, float]]
    by: str

    @property
    def modules(self) -> str:
        """As :class:`mtl.methods.lora.LoRASettings` has them."""
        named = {site.partition(".")[2] for site in self.sites}
        return ",".join(name for name in KNOWN if name in named)

    @property
    def error(self) -> float:
        """The largest of a site."""
        return max(error for _, error in self.errors.values())


def convert(
    config: PeftConfig, tensors: PeftTensors, pristine: Any, encoder: Any, bounds: Bounds
) -> Converted:
    """The LoRA that changes the encoder as the adapter does.

    Args:
        pristine: the encoder as it was loaded.
        encoder: the same, prepared for adapters. Both stay as they are.

    Raises:
        RequestError: it changes modules where our LoRA is not, needs another rank or loses more
            than ``bounds`` allow, or ``peft`` is needed and not there.
        ZooError: weights that do not fit the config or the encoder.
    """
    arch = arch_of(encoder.config)
    known = [name for name in KNOWN if arch.place(name) is not None]
    linears = linear_sites(encoder, known)
    sites: dict[str, list[str]] = {}
    for site, path in linear_paths(encoder, known).items():
        sites.setdefault(path, []).append(site)
    odd = sorted({*tensors.modules} - {*sites})
    if odd:
        raise RequestError(
            f"it changes {counted(len(odd), 'module')} where the LoRA of mtl is not, such as "
            f"{odd[0]}: its sites are {', '.join(known)} of every layer, not the attention's "
            "output projection or what lies outside the layers"
        )
    if config.kind in _PRODUCTS and not config.values.get("use_dora"):
        by = "mtl"
        found, alpha = _products(config, tensors, pristine)
    else:
        require_peft(f"A {config.kind} adapter is converted")
        by = f"mtl, through peft {version('peft')}"
        found, alpha = _factorised(_deltas(config, tensors, pristine), bounds), None
    rank = max(len(part.factors.down) for part in found.values())
    if not any(part.factors.up.any() and part.factors.down.any() for part in found.values()):
        raise RequestError("it changes nothing: what it adds is zero in every module")
    factors, errors = {}, {}
    for path, part in found.items():
        for site in sites[path]:
            linear, down, up = linears[site], part.factors.down, part.factors.up
            if isinstance(linear, Part):  # of a fused module: its rows of up
                up = up[linear.start : linear.start + linear.out_features]
            factors[site] = Factors(down, up)
            errors[site] = (len(down), part.error)
    changed = {site.partition(".")[2] for site in factors}
    shapes = {
        site: (linear.in_features, linear.out_features)
        for site, linear in linears.items()
        if site.partition(".")[2] in changed
    }
    whole = _every_layer(factors, shapes, rank)
    return Converted(whole, rank, float(rank) if alpha is None else alpha, errors, by)


@dataclass(frozen=True)
class _Part:
    """The factors of one module and what they lose of what it adds."""

    factors: Factors
    error: float


# ------------------------------------------------------------------ products of two matrices


@dataclass(frozen=True)
class _Product:
    """``scale · up · down``: down (R,in), up (out,R)."""

    down: Tensor
    up: Tensor
    scale: float


def _lora(config: PeftConfig, own: Mapping[str, Tensor], name: str) -> _Product:
    down, up = _take(own, name, "lora_A.weight", "lora_B.weight")
    rank = len(down)
    said = config.of_module("r", "rank_pattern", name, 8)
    if rank != said:
        raise ZooError(f"its {name} has rank {rank}, its config says {said}")
    alpha = config.of_module("lora_alpha", "alpha_pattern", name, 8)
    root = config.values.get("use_rslora", False)
    return _Product(down, up, alpha / (math.sqrt(rank) if root else rank))


def _adalora(config: PeftConfig, own: Mapping[str, Tensor], name: str) -> _Product:
    down, up, triplets = _take(own, name, "lora_A", "lora_B", "lora_E")
    if triplets.shape != (len(down), 1):
        raise ZooError(
            f"its {name} has {len(down)} rows and {tuple(triplets.shape)} weights of them"
        )
    start = config.values.get("init_r", 12)  # also where ranks were dropped since
    alpha = config.values.get("lora_alpha", 8)
    return _Product(down * triplets, up, (alpha if alpha > 0 else start) / (start + 1e-5))


_PRODUCTS: dict[str, Callable[[PeftConfig, Mapping[str, Tensor], str], _Product]] = {
    "LORA": _lora,
    "ADALORA": _adalora,
}


def _take(own: Mapping[str, Tensor], name: str, *wanted: str) -> list[Tensor]:
    if {*own} != {*wanted}:
        raise ZooError(
            f"its {name} has the tensors {unused(own)}; expected {', '.join(sorted(wanted))}"
        )
    found = [own[key] for key in wanted]
    if any(item.ndim != 2 for item in found) or len(found[0]) != found[1].shape[1]:
        shapes = ", ".join(str(tuple(item.shape)) for item in found)
        raise ZooError(f"its {name} has tensors of shapes {shapes}, which make no product")
    return found


def _products(
    config: PeftConfig, tensors: PeftTensors, pristine: Any
) -> tuple[dict[str, _Part], float | None]:
    """The factors, untouched where one scale is right for all of them, and alpha; else None."""
    products = {
        path: _PRODUCTS[config.kind](config, own, tensors.names[path])
        for path, own in tensors.modules.items()
    }
    for path, found in products.items():
        shape, own = (len(found.up), found.down.shape[1]), _shape(pristine.get_submodule(path))
        if shape != own:
            raise ZooError(f"its {path} changes weights of shape {shape}, the encoder's has {own}")
    ranks = {len(found.down) for found in products.values()}
    scales = {found.scale for found in products.values()}
    if len(ranks) == len(scales) == 1 and min(scales) > 0 and min(ranks) > 0:
        same = {path: _Part(Factors(p.down, p.up), 0.0) for path, p in products.items()}
        return same, scales.pop() * ranks.pop()
    scaled = {}
    for path, found in products.items():
        up = (found.up.double() * found.scale).float()
        delta = found.scale * (found.up.double() @ found.down.double())
        factors = Factors(found.down, up)
        scaled[path] = _Part(factors, _error(delta, factors))
    return scaled, None


# ------------------------------------------------------------------ every other kind


def _deltas(
    config: PeftConfig, tensors: PeftTensors, pristine: Any
) -> Iterator[tuple[str, Tensor]]:
    """Paths, and what the adapter adds to the weight, (out,in) in fp64, as ``peft`` computes it.

    Raises:
        RequestError: this ``peft`` does not know the kind.
        ZooError: the weights do not fit the config.
    """
    from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    if config.kind not in PEFT_TYPE_TO_CONFIG_MAPPING:
        raise RequestError(
            f"it is a {config.kind} adapter, which peft {version('peft')} does not know; a newer "
            "one does"
        )
    given = {
        **tensors.shared,
        **{
            f"{PREFIX}{path}.{key}": tensor
            for path, own in tensors.modules.items()
            for key, tensor in own.items()
        },
    }
    with bounded("the adapter"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that projections are not stored, and the like
        built = PEFT_TYPE_TO_CONFIG_MAPPING[config.kind](
            **_of_each(config, tensors.names), target_modules=sorted(tensors.modules)
        )
        model: Any = get_peft_model(copy.deepcopy(pristine), built)
        wanted = get_peft_model_state_dict(model)
        differing = sorted({*wanted} ^ {*given}) or [
            name for name, tensor in given.items() if wanted[name].shape != tensor.shape
        ]
        if differing:
            raise ZooError(
                f"its weights are not those of its config: {counted(len(differing), 'tensor')} "
                f"missing, too many or of another shape ({printable(differing[0])[:120]})"
            )
        set_peft_model_state_dict(model, given)
        model.double().eval()
    for path in tensors.modules:
        with bounded("the adapter"):
            delta = _added(model.base_model.model.get_submodule(path))
        yield path, delta


def _of_each(config: PeftConfig, names: Mapping[str, str]) -> dict[str, Any]:
    """The values of a config with every pattern written out: our path of a module → its value."""
    values = {key: value for key, value in config.values.items() if key != "init_lora_weights"}
    for key in [key for key in values if key.endswith("_pattern")]:
        single = {"rank_pattern": "r", "alpha_pattern": "alpha"}.get(
            key, key.removesuffix("_pattern")
        )
        single = "lora_alpha" if config.kind == "LORA" and single == "alpha" else single
        found = {path: config.of_module(single, key, name) for path, name in names.items()}
        values[key] = {path: value for path, value in found.items() if value is not None}
    return values


@torch.no_grad()
def _added(module: Any) -> Tensor:
    base = module.get_base_layer()
    unit = torch.eye(_shape(base)[1], dtype=torch.float64)
    return (module(unit) - base(unit)).t()


def _factorised(deltas: Iterable[tuple[str, Tensor]], bounds: Bounds) -> dict[str, _Part]:
    """Factors of rank ``bounds.rank`` at most.

    Raises:
        RequestError: a module loses more than ``bounds`` allow.
    """
    found, exact, lost, shapes = {}, 1, 0.0, []
    for path, delta in deltas:
        shapes.append(delta.shape)
        left, values, right = torch.linalg.svd(delta, full_matrices=False)
        rest = values.square().flip(0).cumsum(0).flip(0).sqrt()  # what the ranks from k on hold
        needed = int((rest > EXACT * rest[0]).sum())
        rank = min(needed, bounds.rank)
        factors = Factors(
            right[:rank].float().contiguous(), (left[:, :rank] * values[:rank]).float().contiguous()
        )
        found[path] = _Part(factors, _error(delta, factors))
        exact, lost = max(exact, needed), max(lost, found[path].error)
    if lost > max(bounds.error, EXACT):
        raise RequestError(
            f"as a LoRA of rank {bounds.rank} it would lose {lost:.2g} of what a module adds "
            f"(--max-error {bounds.error:g}); rank {exact} loses nothing: pass --rank {exact} "
            f"({exact * sum(map(sum, shapes)):,} numbers), or a larger --max-error"
        )
    return found


# ------------------------------------------------------------------ both


def _error(delta: Tensor, found: Factors) -> float:
    """What is lost of ``delta``, in two digits: more than that differs from machine to machine."""
    whole = float(delta.norm())
    rest = float((delta - found.up.double() @ found.down.double()).norm())
    return float(f"{rest / whole if whole else 0.0:.2g}")


def _shape(linear: Any) -> tuple[int, int]:
    """(out, in) of a linear module; GPT-2's ``Conv1D`` has its weight transposed."""
    if hasattr(linear, "in_features"):
        return linear.out_features, linear.in_features
    return linear.weight.shape[1], linear.weight.shape[0]


def _every_layer(
    factors: Mapping[str, Factors], shapes: Mapping[str, tuple[int, int]], rank: int
) -> dict[str, Factors]:
    """``factors`` filled up with zeros to one rank, and zeros for sites that have none.

    Args:
        shapes: site → (in, out), of every site that there is to be.

    Raises:
        ZooError: that is more than an entry may hold.
    """
    elements = rank * sum(map(sum, shapes.values()))
    if elements > current().load_elements:
        raise ZooError(
            f"as a LoRA of rank {rank} in every layer it has {elements:,} elements "
            f"(limit load_elements, {current().load_elements:,})"
        )
    found = {}
    for site, (width, out) in shapes.items():
        down, up = torch.zeros(rank, width), torch.zeros(out, rank)
        if site in factors:
            down[: len(factors[site].down)] = factors[site].down
            up[:, : len(factors[site].down)] = factors[site].up
        found[site] = Factors(down, up)
    return found
