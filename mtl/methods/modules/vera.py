"""The torch side of :mod:`mtl.methods.vera`."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mtl.backbone.linear import (
    linear_sites,
    module_names,
    path_pattern,
    split_wholes,
    whole_of,
    whole_paths,
)
from mtl.engine import Group
from mtl.errors import ZooError
from mtl.methods.low_rank import (
    Factors,
)
from mtl.methods.peft_files import (
    NAME,
    PREFIX,
    config_dict,
    read_peft,
    require_peft,
    save_peft,
    take,
)
from mtl.methods.tuned import Tuned

if TYPE_CHECKING:
    from mtl.methods.method import RunFacts
    from mtl.methods.vera import VeRASettings


def projections(encoder: Any, settings: VeRASettings) -> tuple[Tensor, Tensor]:
    """A (R, largest in) and B (largest out, R) as ``peft`` draws them: kaiming-uniform, seeded."""
    linears: list[Any] = [
        whole_of(linear)
        for linear in linear_sites(encoder, module_names(settings.modules)).values()
    ]
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
    require_peft("Method 'vera' trains")
    from peft import VeraConfig
    from peft.tuners.vera.model import VeraModel

    paths = whole_paths(encoder, module_names(settings.modules), "vera")
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


def read(
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
    found = {}
    for site, path in whole_paths(encoder, modules, "vera").items():
        linear: Any = encoder.get_submodule(path)
        d, b = (take(folder, stored, f"{PREFIX}{path}.vera_lambda_{key}") for key in "db")
        own_down, own_up = down[:, : linear.in_features], up[: linear.out_features]
        if d.shape != own_down.shape[:1] or b.shape != own_up.shape[:1]:
            raise ZooError(
                f"Cannot load the adapter in {folder}: the vectors of {site} have shapes "
                f"{tuple(d.shape)} and {tuple(b.shape)}; expected {tuple(own_down.shape[:1])} and "
                f"{tuple(own_up.shape[:1])}."
            )
        found[site] = (d.unsqueeze(1) * own_down, b.unsqueeze(1) * own_up)
    factors = split_wholes(encoder, modules, found)
    return config, stored, {site: Factors(*both) for site, both in factors.items()}
