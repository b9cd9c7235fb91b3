"""Which of our methods, with which settings, is an adapter that stock ``adapters`` configured?

A guess of settings is right when the config that our method builds from them equals the stored one
in everything that enters the function. So an option that our methods do not have is never lost.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from functools import partial
from types import MappingProxyType
from typing import Any

import adapters

from mtl.backbone.linear import module_names
from mtl.errors import MtlError, RequestError
from mtl.methods import METHODS
from mtl.methods.library import load_library
from mtl.methods.lora import KNOWN, lora_config
from mtl.methods.method import make_settings, settings_dict
from mtl.words import printable

Config = Mapping[str, Any]

_INITIAL = {
    "init_weights", "init_weights_seed", "phm_c_init", "phm_init_range",
    "hypercomplex_nonlinearity", "dtype", "stochastic_depth",
}  # fmt: skip
"""Options of how training starts, or of training alone, that our settings leave at one value."""
_PHM = {
    "phm_dim", "factorized_phm_W", "shared_W_phm", "shared_phm_rule", "factorized_phm_rule",
    "learn_phm", "phm_rank", "phm_bias",
}  # fmt: skip
_NONE = object()
_CLASSES: dict[str | None, Any] = {
    None: adapters.BnConfig,
    "prefix_tuning": adapters.PrefixTuningConfig,
    "lora": adapters.LoRAConfig,
    "reft": adapters.ReftConfig,
}
_LORA_SCALE_ONLY = {"vera_d", "vera_b"}


def recognise(
    config: Any, hidden_size: int, lora_names: Mapping[str, str] = MappingProxyType({})
) -> tuple[str, Any]:
    """Name of the method and its settings for a ``config`` of stock ``adapters``.

    Args:
        lora_names: of the encoder's type, see :class:`mtl.backbone.arch_row.Arch`.

    Raises:
        RequestError: no method of ours builds it; names the closest and what differs.
    """
    if not isinstance(config, Mapping):
        raise RequestError(f"its config is {printable(config)[:60]!r}, not an object")
    close: list[tuple[int, str]] = []
    stored = _function(config, hidden_size)
    builders = {name: _builder(name) for name in _GUESSES if name != "lora"}
    builders["lora"] = partial(_built_lora, lora_names)
    guesses: dict[str, Callable[[Config, int], dict[str, Any]]] = {**_GUESSES}
    guesses["lora"] = partial(_lora, lora_names)
    for name, guess in guesses.items():
        try:
            values = guess(config, hidden_size)
            method = METHODS.get(name)
            settings = make_settings(name, method.settings, {**method.defaults, **values})
            built = _function(builders[name](settings, hidden_size).to_dict(), hidden_size)
        except (MtlError, KeyError, TypeError, ValueError, ArithmeticError):
            continue
        wrong = sorted(k for k in {*stored, *built} if stored.get(k, _NONE) != built.get(k, _NONE))
        if not wrong:
            return name, settings_dict(settings)
        said = "; ".join(
            f"{printable(key)[:40]} is {printable(stored.get(key, 'absent'))[:60]}, there "
            f"{built.get(key, 'unknown')}"
            for key in wrong[:4]
        )
        close.append((len(wrong), f"The closest is {name!r}: {said}"))
    architecture = printable(config.get("architecture"))[:40]
    nearest = min(close, key=lambda item: item[0])[1] if close else "None is close"
    raise RequestError(
        f"its method (architecture {architecture!r}) is none that mtl has. {nearest}"
    )


def _builder(name: str) -> Callable[[Any, int], Any]:
    """(settings, D) → the config object with which the method loads its adapters."""
    load = METHODS.get(name).load
    if isinstance(load, partial) and load.func is load_library:
        build: Callable[[Any, int], Any] = load.args[0]
        return build
    raise KeyError(name)


def _function(config: Config, hidden_size: int) -> dict[str, Any]:
    """What of a config enters the function, in one spelling.

    Keys that an older file lacks have the default with which ``adapters`` reads it.
    """
    architecture = config.get("architecture")
    known = _CLASSES.get(architecture) if isinstance(architecture, str | None) else None
    defaults = {
        item.name: item.default if item.default_factory is MISSING else item.default_factory()
        for item in (fields(known) if known else ())
        if not (item.default is MISSING and item.default_factory is MISSING)
    }
    found = {k: v for k, v in {**defaults, **config}.items() if k not in _INITIAL}
    if found.get("architecture") is None:
        found.pop("architecture", None)
    if found.get("leave_out", []) is None:
        found["leave_out"] = []
    parts = found.get("configs")
    if isinstance(parts, list) and all(isinstance(item, Mapping) for item in parts):
        found["configs"] = [_function(item, hidden_size) for item in parts]
    if "reduction_factor" in found:
        with contextlib.suppress(TypeError, ValueError, ArithmeticError):  # one per layer: no R
            found["reduction_factor"] = f"R={_size(found['reduction_factor'], hidden_size)}"
    if not found.get("phm_layer"):
        found = {key: value for key, value in found.items() if key not in _PHM}
    if found.get("architecture") == "prefix_tuning" and found.get("flat"):
        found.pop("bottleneck_size", None)
        found.pop("non_linearity", None)
    if found.get("architecture") == "lora":
        matrices = found.get("attn_matrices") if found.get("selfattn_lora") else []
        if isinstance(matrices, list | tuple):  # a set: each is a module of its own
            found["attn_matrices"] = sorted({str(item) for item in matrices})
    return {key: value for key, value in found.items() if key not in _LORA_SCALE_ONLY or value}


def _size(factor: Any, hidden_size: int) -> int:
    """R as ``adapters`` computes it."""
    return int(hidden_size // float(factor))


def _bottleneck(config: Config, hidden_size: int, **more: Any) -> dict[str, Any]:
    size = _size(config["reduction_factor"], hidden_size)
    return {"bottleneck": size, "activation": str(config["non_linearity"]).lower(), **more}


def _placed(placement: str) -> Callable[[Config, int], dict[str, Any]]:
    def guess(config: Config, hidden_size: int) -> dict[str, Any]:
        dropout = config.get("dropout", 0.0)
        return _bottleneck(config, hidden_size, placement=placement, dropout=dropout)

    return guess


def _phm(placement: str) -> Callable[[Config, int], dict[str, Any]]:
    def guess(config: Config, hidden_size: int) -> dict[str, Any]:
        dim = config["phm_dim"]
        return _bottleneck(config, hidden_size, placement=placement, phm_dim=dim)

    return guess


def _prefix(config: Config, _: int) -> dict[str, Any]:
    return {
        "prefix_length": config["prefix_length"],
        "flat": config["flat"],
        "mlp_bottleneck": config.get("bottleneck_size", 512),
        "dropout": config.get("dropout", 0.0),
    }


def _lora(lora_names: Mapping[str, str], config: Config, _: int) -> dict[str, Any]:
    known = _function(config, 0)
    theirs = [name for name in ("q", "k", "v") if name in known["attn_matrices"]]
    theirs += [name for name in ("intermediate", "output") if known[f"{name}_lora"]]
    modules = [name for name in KNOWN if lora_names.get(name, name) in theirs]
    names = {"rank": "r", "alpha": "alpha", "dropout": "dropout"}
    values = {ours: known[theirs] for ours, theirs in names.items()}
    return {**values, "modules": ",".join(modules)}


def _built_lora(lora_names: Mapping[str, str], settings: Any, _: int) -> Any:
    values = {"r": settings.rank, "alpha": settings.alpha, "dropout": settings.dropout}
    return lora_config(lora_names, module_names(settings.modules), **values)


def _loreft(config: Config, _: int) -> dict[str, Any]:
    names = {"rank": "r", "prefix_positions": "prefix_positions"}
    more = {"suffix_positions": "suffix_positions", "dropout": "dropout"}
    return {ours: config[theirs] for ours, theirs in {**names, **more}.items()}


def _unipelt(config: Config, hidden_size: int) -> dict[str, Any]:
    prefix, adapter, *lora = config["configs"]
    values = {
        "prefix_length": prefix["prefix_length"],
        "bottleneck": _size(adapter["reduction_factor"], hidden_size),
        "gate_padding": True,
    }
    return {**values, "rank": lora[0]["r"]} if lora else values


_GUESSES: dict[str, Callable[[Config, int], dict[str, Any]]] = {
    "pfeiffer": _placed("pfeiffer"),
    "houlsby": _placed("houlsby"),
    "parallel": _placed("parallel"),
    "compacter": _phm("houlsby"),
    "compacter++": _phm("pfeiffer"),
    "prefix": _prefix,
    "ia3": lambda config, hidden_size: {},
    "loreft": _loreft,
    "lora": partial(_lora, {}),
    "unipelt-ap": _unipelt,
    "unipelt-apl": _unipelt,
}
