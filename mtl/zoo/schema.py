"""What ``manifest.json`` must hold: required keys and types of each section, checked one by one.

Further keys inside a section are kept and, where the section is part of the identity, enter the
digest; unknown keys at the top are refused (:mod:`mtl.zoo.manifest`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from mtl.backbone.identity import function_fingerprint
from mtl.errors import MtlError, ZooError, did_you_mean
from mtl.zoo.names import CARD, MANIFEST, TENSOR_SUFFIX, clash, is_pickle, safe_name, safe_path

JsonObject = dict[str, Any]

KINDS = ("adapter", "composition", "joint")
WEIGHTS = ("adapters", "peft", "delta")

_Types = tuple[type, ...]
_NONE = type(None)
_NUMBER: _Types = (int, float)

# Section → required key → allowed types.
_SECTIONS: dict[str, dict[str, _Types]] = {
    "base": {
        "id": (str,),
        "revision": (str, _NONE),
        "fingerprint": (str,),
        "type": (str,),
        "hidden_size": (int,),
        "layers": (int,),
        "tokenizer": (str, _NONE),
    },
    "task": {
        "id": (str,),
        "suite": (str,),
        "name": (str,),
        "kind": (str,),
        "labels": (list, _NONE),
        "metrics": (list,),
        "headline": (str, _NONE),
        "num_outputs": (int, _NONE),
    },
    "data": {
        "fingerprint": (str,),
        "protocol": (str, _NONE),
        "sizes": (dict,),
        "notes": (list, dict, str, _NONE),
    },
    "training": {
        "steps": (int,),
        "epochs": (*_NUMBER, _NONE),
        "best_step": (int, _NONE),
        "seconds": _NUMBER,
        "device": (str,),
        "precision": (str,),
        "threads": (int, _NONE),
        "trainable_parameters": (int,),
        "stopped": (str, bool, _NONE),
    },
}
# What a base says of its function, from schema version 3; an older entry has none of them.
_FUNCTION: dict[str, _Types] = {"weights": (str,), "pooler": (str, _NONE), "config": (dict,)}
_PARENT: dict[str, _Types] = {
    "ref": (str,),
    "digest": (str,),
    "task": (str,),
    "method": (str,),
    "seed": (int,),
}
_VALUE: dict[str, _Types] = {
    "value": (*_NUMBER, _NONE),
    "stderr": (*_NUMBER, _NONE),
    "n": (int, _NONE),
}
_HASH = re.compile(r"[0-9a-f]{8,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def show(value: Any) -> str:
    """``value`` as messages show it: short, and without control characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _check(value: Any, types: _Types, where: str) -> None:
    # bool is an int to Python, not to us.
    fits = isinstance(value, types) and (bool in types or not isinstance(value, bool))
    if fits and (not isinstance(value, float) or math.isfinite(value)):
        return
    names = " or ".join("null" if t is _NONE else t.__name__ for t in types)
    raise ZooError(f"{where}: expected {names}, found {show(value)}.")


def _check_count(value: Any, where: str) -> None:
    _check(value, (int,), where)
    if value < 0:
        raise ZooError(f"{where}: {show(value)} is negative.")


def _check_section(value: Any, keys: Mapping[str, _Types], where: str) -> None:
    _check(value, (dict,), where)
    for key, types in keys.items():
        if key not in value:
            raise ZooError(f"{where}: the key {key!r} is missing.")
        _check(value[key], types, f"{where}.{key}")


def check_manifest(value: JsonObject, where: str) -> None:
    """Check the keys of a manifest (all there, none unknown) and of its sections.

    Raises:
        ZooError: names ``where``, the key, what was expected and found.
    """
    for key in ("suite", "method", "runhash", "command", "created", "kind", "weights"):
        _check(value[key], (str,), f"{where}.{key}")
    for key in ("method_settings", "run_settings", "head", "metrics", "versions"):
        _check(value[key], (dict,), f"{where}.{key}")
    _check(value["seed"], (int,), f"{where}.seed")
    _check(value["verified"], (dict, _NONE), f"{where}.verified")
    _check(value["parents"], (list,), f"{where}.parents")
    for section, keys in _SECTIONS.items():
        _check_section(value[section], keys, f"{where}.{section}")
    for place, name in (
        ("suite", value["suite"]),
        ("method", value["method"]),
        ("task.name", value["task"]["name"]),
    ):
        _check_name(name, f"{where}.{place}")
    for key, allowed in (("kind", KINDS), ("weights", WEIGHTS)):
        if value[key] not in allowed:
            guess = did_you_mean(value[key][:60], allowed)
            raise ZooError(
                f"{where}.{key}: {show(value[key])} is none of {', '.join(allowed)}.{guess}"
            )
    if value["seed"] < 0:
        raise ZooError(f"{where}.seed: {value['seed']} is negative.")
    for key, text in (
        ("runhash", value["runhash"]),
        ("base.fingerprint", value["base"]["fingerprint"]),
    ):
        if not _HASH.fullmatch(text):
            raise ZooError(f"{where}.{key}: {show(text)} is not 8 to 64 lower-case hex digits.")
    for section, key in (
        ("base", "hidden_size"),
        ("base", "layers"),
        ("training", "steps"),
        ("training", "trainable_parameters"),
    ):
        _check_count(value[section][key], f"{where}.{section}.{key}")
    _check_function(value["base"], f"{where}.base")
    for key in ("labels", "metrics"):
        for number, text in enumerate(value["task"][key] or ()):
            _check(text, (str,), f"{where}.task.{key}[{number}]")
    for name, size in value["data"]["sizes"].items():
        _check_count(size, f"{where}.data.sizes[{show(name)}]")
    for name, version in value["versions"].items():
        _check(version, (str, _NONE), f"{where}.versions[{show(name)}]")
    for split, metrics in value["metrics"].items():
        _check(metrics, (dict,), f"{where}.metrics[{show(split)}]")
        for metric, item in metrics.items():
            _check_section(item, _VALUE, f"{where}.metrics[{show(split)}][{show(metric)}]")
    _check_parents(value["parents"], where)


def _check_function(base: JsonObject, where: str) -> None:
    """A base that says what decides its function has the fingerprint of that."""
    if not _FUNCTION.keys() & base.keys():
        return
    _check_section(base, _FUNCTION, where)
    for key in ("weights", "pooler"):
        if base[key] is not None and not _DIGEST.fullmatch(base[key]):
            raise ZooError(f"{where}.{key}: {show(base[key])} is not 64 lower-case hex digits.")
    found = function_fingerprint(base["weights"], base["type"], base["config"], base["tokenizer"])
    if found != base["fingerprint"]:
        raise ZooError(
            f"{where}.fingerprint: {show(base['fingerprint'])} is not that of the weights, config "
            f"and tokenizer beside it ({found[:16]}…)."
        )


def _check_parents(parents: list[Any], where: str) -> None:
    for number, parent in enumerate(parents):
        place = f"{where}.parents[{number}]"
        _check_section(parent, _PARENT, place)
        if not _DIGEST.fullmatch(parent["digest"]):
            raise ZooError(
                f"{place}.digest: {show(parent['digest'])} is not 64 lower-case hex digits."
            )
        _check_path(parent["ref"], f"{place}.ref")


def check_files(files: Any, where: str, *, headers: bool = True) -> dict[str, JsonObject]:
    """Check the file table: safe names, hashes, sizes, and the headers of safetensors files.

    Args:
        headers: whether the schema version has ``tensors`` (dtype and shape by name) in the table.

    Raises:
        ZooError: says which file, and what is wrong.
    """
    _check(files, (dict,), f"{where}.files")
    for name, item in files.items():
        place = f"{where}.files[{show(name)}]"
        _check_path(name, place)
        _check_section(item, {"sha256": (str,), "bytes": (int,)}, place)
        if not _DIGEST.fullmatch(item["sha256"]) or item["bytes"] < 0:
            raise ZooError(f"{place}: {show(item)} is no sha256 and size.")
        if is_pickle(name) or name in {MANIFEST, CARD}:
            raise ZooError(f"{place}: such a file is never part of an entry's file table.")
        if headers and name.endswith(TENSOR_SUFFIX):
            _check_headers(item.get("tensors"), f"{place}.tensors")
    two = clash(files)
    if two:
        raise ZooError(
            f"{where}.files: {two[0]!r} and {two[1]!r} are one file on some systems; "
            "names may not differ only in case, or be file and folder."
        )
    return files


def _check_headers(tensors: Any, where: str) -> None:
    _check(tensors, (dict,), where)
    for name, item in tensors.items():
        whole = isinstance(item, list) and len(item) == 2 and isinstance(item[1], list)
        if not (
            whole
            and isinstance(item[0], str)
            and all(type(size) is int and size >= 0 for size in item[1])
        ):
            raise ZooError(f"{where}[{show(name)}]: {show(item)} is no dtype and shape.")


def _check_path(path: str, where: str) -> None:
    try:
        safe_path(path, "path")
    except MtlError as error:
        raise ZooError(f"{where}: {error}") from error


def _check_name(name: str, where: str) -> None:
    try:
        safe_name(name, "name")
    except MtlError as error:
        raise ZooError(f"{where}: {error}") from error
