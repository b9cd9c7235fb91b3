"""VeRA: two learned vectors per module around frozen random projections, through ``peft``.

``adapters`` has a config of this name, too, which trains two whole matrices instead
(specs/adapter_methods §7.1 Q4).
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtl.backbone.linear import linear_paths, linear_sites, module_names, path_pattern
from mtl.engine import Group
from mtl.engine.settings import Training
from mtl.errors import RequestError, ZooError
from mtl.methods.low_rank import (
    Factors,
    canonical,
    check_rank,
    placement,
    source_loader,
)
from mtl.methods.method import Method, RunFacts
from mtl.methods.peft_files import (
    NAME,
    PREFIX,
    config_dict,
    load_peft,
    read_factors,
    read_peft,
    require_peft,
    save_peft,
    take,
)
from mtl.methods.tuned import Tuned


@dataclass(frozen=True)
class VeRASettings:
    """``delta(x) = b ⊙ (B·(d ⊙ (A·dropout(x))))`` beside every chosen linear module.

    A (R,in) and B (out,R) are random, frozen and shared by all modules, cut to each module's
    shape; d (R,) starts at ``d_initial``, b (out,) at 0. R + out parameters per site: 43,008 on
    BERT-base at rank 1024 (specs/adapter_methods §6).

    Attributes:
        rank: R; larger than LoRA's, since only vectors train.
        d_initial: start of d.
        dropout: on x, while training.
        projection_seed: A and B are drawn from it, whatever the run's seed.
        store_projection: whether A and B are stored; without, they are drawn again at loading.
        modules: of ``q``, ``k``, ``v``, ``attention``, ``intermediate``, ``output``, separated by
            commas, or ``all``.
    """

    rank: int = 256
    d_initial: float = 0.1
    dropout: float = 0.0
    projection_seed: int = 0
    store_projection: bool = True
    modules: str = "q,v"

    def __post_init__(self) -> None:
        check_rank(self.rank, dropout=self.dropout)
        canonical(self)
        if self.projection_seed < 0:
            raise RequestError(f"projection_seed={self.projection_seed} must not be negative.")


def projections(encoder: Any, settings: VeRASettings) -> tuple[Tensor, Tensor]:
    """A (R, largest in) and B (largest out, R) as ``peft`` draws them: kaiming-uniform, seeded."""
    linears = linear_sites(encoder, module_names(settings.modules)).values()
    generator = torch.Generator().manual_seed(settings.projection_seed)
    found = []
    for shape in (
        (settings.rank, max(linear.in_features for linear in linears)),
        (max(linear.out_features for linear in linears), settings.rank),
    ):
        # in this order of operations, so that the last bit agrees with peft's
        bound = math.sqrt(3.0) * (math.sqrt(2) / math.sqrt(shape[1]))
        found.append(torch.empty(shape).uniform_(-bound, bound, generator=generator))
    return found[0], found[1]


def attach(encoder: Any, settings: VeRASettings, name: str, _: RunFacts) -> Tuned:
    """Inject ``peft``'s VeRA linears, trainable and active.

    Raises:
        RequestError: ``peft`` is not installed.
    """
    require_peft("vera")
    from peft import VeraConfig
    from peft.tuners.vera.model import VeraModel

    paths = linear_paths(encoder, module_names(settings.modules))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that projections are not stored
        config = VeraConfig(
            r=settings.rank,
            d_initial=settings.d_initial,
            vera_dropout=settings.dropout,
            projection_prng_key=settings.projection_seed,
            save_projection=settings.store_projection,
            target_modules=path_pattern(list(paths.values())),
        )
        tuner: Any = VeraModel(encoder, config, NAME)
    layers = {path: encoder.get_submodule(path) for path in paths.values()}
    own = {
        f"{site}.{key}": getattr(layers[path], f"vera_lambda_{key}")[NAME]
        for site, path in paths.items()
        for key in "db"
    }
    for parameter in own.values():
        parameter.requires_grad_(True)

    def save(folder: Path, base: str) -> None:
        tensors: dict[str, Tensor] = {}
        for site, path in paths.items():
            for key in "db":
                tensors[f"{PREFIX}{path}.vera_lambda_{key}"] = own[f"{site}.{key}"].detach()
        if settings.store_projection:
            tensors["base_model.vera_A"] = tuner.vera_A[NAME]
            tensors["base_model.vera_B"] = tuner.vera_B[NAME]
        save_peft(folder, config_dict(config), tensors, base)

    return Tuned([Group("method", own)], save)


def _read(
    encoder: Any, settings: VeRASettings, folder: Path
) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Factors]]:
    expected = {"r": settings.rank, "projection_prng_key": settings.projection_seed}
    config, stored = read_peft(folder, "VERA", expected)
    if settings.store_projection:
        down = take(folder, stored, "base_model.vera_A")
        up = take(folder, stored, "base_model.vera_B")
    else:
        down, up = projections(encoder, settings)
    modules = module_names(settings.modules)
    paths = linear_paths(encoder, modules)
    found = {}
    for site, linear in linear_sites(encoder, modules).items():
        d, b = (take(folder, stored, f"{PREFIX}{paths[site]}.vera_lambda_{key}") for key in "db")
        own_down, own_up = down[:, : linear.in_features], up[: linear.out_features]
        if d.shape != own_down.shape[:1] or b.shape != own_up.shape[:1]:
            raise ZooError(
                f"Cannot load the adapter in {folder}: the vectors of {site} have shapes "
                f"{tuple(d.shape)} and {tuple(b.shape)}; expected {tuple(own_down.shape[:1])} and "
                f"{tuple(own_up.shape[:1])}."
            )
        found[site] = Factors(d.unsqueeze(1) * own_down, b.unsqueeze(1) * own_up)
    return config, stored, found


METHOD = Method(
    name="vera",
    settings=VeRASettings,
    summary="learned vectors around frozen random projections beside linear modules (peft)",
    citation="Kopiczko et al. 2024, arXiv:2310.11454; spec methods §6.1",
    training=Training(
        "not in the specs; public re-runs on RoBERTa-base train its vectors at 1e-2, the head at "
        "4e-3, which is for both here",
        {"lr": 4e-3, "epochs": 30, "batch_size": 64, "select": "metric", "patience": 0},
    ),
    attach=attach,
    load=partial(load_peft, _read),
    placement=placement,
    composes="low_rank",
    load_source=source_loader(partial(read_factors, _read)),
    weights=lambda settings: "peft",
    package="peft",
)
