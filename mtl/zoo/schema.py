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

Types = tuple[type, ...]
NONE = type(None)
NUMBER: Types = (int, float)

# Section → required key → allowed types.
_SECTIONS: dict[str, dict[str, Types]] = {
    "base": {
        "id": (str,),
        "revision": (str, NONE),
        "fingerprint": (str,),
        "type": (str,),
        "hidden_size": (int,),
        "layers": (int,),
        "tokenizer": (str, NONE),
    },
    "task": {
        "id": (str,),
        "suite": (str,),
        "name": (str,),
        "kind": (str,),
        "labels": (list, NONE),
        "metrics": (list,),
        "headline": (str, NONE),
        "num_outputs": (int, NONE),
    },
    "data": {
        "fingerprint": (str,),
        "protocol": (str, NONE),
        "sizes": (dict,),
        "notes": (list, dict, str, NONE),
    },
    "training": {
        "steps": (int,),
        "epochs": (*NUMBER, NONE),
        "best_step": (int, NONE),
        "seconds": NUMBER,
        "device": (str,),
        "precision": (str,),
        "threads": (int, NONE),
        "trainable_parameters": (int,),
        "stopped": (str, bool, NONE),
    },
}
# What a base says of its function, from schema version 3; an older entry has none of them.
_FUNCTION: dict[str, Types] = {"weights": (str,), "pooler": (str, NONE), "config": (dict,)}
# Section → key that may be missing (entries of before it was recorded) → allowed types.
_OPTIONAL: dict[str, dict[str, Types]] = {
    "data": {"splits": (dict, NONE), "few_shot": (dict, NONE)},
    "task": {"spec": (dict, NONE)},
}
JOINT_TASK: dict[str, Types] = {
    "id": (str,),
    "headline": (str,),
    "num_outputs": (int, NONE),
    "kind": (str,),
    "labels": (list, NONE),
}
_PARENT: dict[str, Types] = {
    "ref": (str,),
    "digest": (str,),
    "task": (str,),
    "method": (str,),
    "seed": (int,),
}
_VALUE: dict[str, Types] = {
    "value": (*NUMBER, NONE),
    "stderr": (*NUMBER, NONE),
    "n": (int, NONE),
}
_HASH = re.compile(r"[0-9a-f]{8,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def show(value: Any) -> str:
    """``value`` as messages show it: short, and without control characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def check_type(value: Any, types: Types, where: str) -> None:
    """Whether ``value`` is of one of ``types``, and finite. Raises ZooError."""
    # bool is an int to Python, not to us.
    fits = isinstance(value, types) and (bool in types or not isinstance(value, bool))
    if fits and (not isinstance(value, float) or math.isfinite(value)):
        return
    names = " or ".join("null" if t is NONE else t.__name__ for t in types)
    raise ZooError(f"{where}: expected {names}, found {show(value)}.")


def _check_count(value: Any, where: str) -> None:
    check_type(value, (int,), where)
    if value < 0:
        raise ZooError(f"{where}: {show(value)} is negative.")


def check_section(
    value: Any, keys: Mapping[str, Types], where: str, *, partial: bool = False
) -> None:
    """Whether ``value`` is an object with these keys of these types; others are not looked at.

    Args:
        partial: keys may be missing.

    Raises:
        ZooError: names ``where``, the key, what was expected and found.
    """
    check_type(value, (dict,), where)
    for key, types in keys.items():
        if key in value:
            check_type(value[key], types, f"{where}.{key}")
        elif not partial:
            raise ZooError(f"{where}: the key {key!r} is missing.")


def check_manifest(value: JsonObject, where: str) -> None:
    """Check the keys of a manifest (all there, none unknown) and of its sections.

    Raises:
        ZooError: names ``where``, the key, what was expected and found.
    """
    for key in ("suite", "method", "runhash", "command", "created", "kind", "weights"):
        check_type(value[key], (str,), f"{where}.{key}")
    for key in ("method_settings", "run_settings", "head", "metrics", "versions"):
        check_type(value[key], (dict,), f"{where}.{key}")
    check_type(value["seed"], (int,), f"{where}.seed")
    check_type(value["verified"], (dict, NONE), f"{where}.verified")
    check_type(value["parents"], (list,), f"{where}.parents")
    for section, keys in _SECTIONS.items():
        check_section(value[section], keys, f"{where}.{section}")
    for section, keys in _OPTIONAL.items():
        check_section(value[section], keys, f"{where}.{section}", partial=True)
    for name, mark in (value["data"].get("splits") or {}).items():
        check_type(mark, (str,), f"{where}.data.splits[{show(name)}]")
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
            check_type(text, (str,), f"{where}.task.{key}[{number}]")
    for name, size in value["data"]["sizes"].items():
        _check_count(size, f"{where}.data.sizes[{show(name)}]")
    for name, version in value["versions"].items():
        check_type(version, (str, NONE), f"{where}.versions[{show(name)}]")
    for split, metrics in value["metrics"].items():
        check_type(metrics, (dict,), f"{where}.metrics[{show(split)}]")
        for metric, item in metrics.items():
            place = f"{where}.metrics[{show(split)}][{show(metric)}]"
            check_section(item, _VALUE, place)
            check_type(item.get("caveat"), (str, NONE), f"{place}.caveat")
    _check_parents(value["parents"], where)


def _check_function(base: JsonObject, where: str) -> None:
    """A base that says what decides its function has the fingerprint of that."""
    if not _FUNCTION.keys() & base.keys():
        return
    check_section(base, _FUNCTION, where)
    for key in ("weights", "pooler"):
        if base[key] is not None and not _DIGEST.fullmatch(base[key]):
            raise ZooError(f"{where}.{key}: {show(base[key])} is not 64 lower-case hex digits.")
    found = function_fingerprint(base["weights"], base["type"], base["config"], base["tokenizer"])
    if found != base["fingerprint"]:
        raise ZooError(
            f"{where}.fingerprint: {show(base['fingerprint'])} is not that of the weights, config "
            f"and tokenizer beside it ({found[:16]}…)."
        )


def joint_sections(
    task: JsonObject, data: JsonObject, where: str
) -> dict[str, tuple[JsonObject, JsonObject]]:
    """Task id → what a joint manifest says of the task, and of its data, in the order of its run.

    Args:
        task, data: the manifest's sections.

    Raises:
        ZooError: ``task.tasks`` does not describe every task once, or ``data.tasks`` not one of
            them.
    """
    listed, datas = task.get("tasks"), data.get("tasks")
    if not isinstance(listed, list) or not listed:
        raise ZooError(f"{where}.task.tasks: expected a list of tasks, found {show(listed)}.")
    if not isinstance(datas, dict):
        raise ZooError(f"{where}.data.tasks: expected dict, found {show(datas)}.")
    found: dict[str, tuple[JsonObject, JsonObject]] = {}
    for number, section in enumerate(listed):
        place = f"{where}.task.tasks[{number}]"
        check_section(section, JOINT_TASK, place)
        for label in section["labels"] or ():
            check_type(label, (str,), f"{place}.labels")
        name = section["id"]
        _check_path(name, f"{place}.id")
        if name in found:
            raise ZooError(f"{place}.id: {show(name)} is there twice.")
        own = f"{where}.data.tasks[{show(name)}]"
        check_section(datas.get(name), {"fingerprint": (str,)}, own)
        optional = {"sizes": (dict, NONE), "splits": (dict, NONE), "protocol": (str, NONE)}
        check_section(datas[name], optional, own, partial=True)
        found[name] = (section, datas[name])
    return found


def _check_parents(parents: list[Any], where: str) -> None:
    for number, parent in enumerate(parents):
        place = f"{where}.parents[{number}]"
        check_section(parent, _PARENT, place)
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
    check_type(files, (dict,), f"{where}.files")
    for name, item in files.items():
        place = f"{where}.files[{show(name)}]"
        _check_path(name, place)
        check_section(item, {"sha256": (str,), "bytes": (int,)}, place)
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
    check_type(tensors, (dict,), where)
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
