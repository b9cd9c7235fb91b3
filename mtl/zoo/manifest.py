"""``manifest.json``: what an entry is, how it was made and how good it is.

A manifest is typed at the top (:class:`Manifest`); its sections are JSON objects whose required
keys and types are listed in ``_SECTIONS``. Further keys inside a section are kept and, where the
section is part of the identity, enter the digest; unknown keys at the top are refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from mtl.errors import MtlError, ZooError, did_you_mean
from mtl.files import sha256_json
from mtl.zoo.names import CARD, MANIFEST, TENSOR_SUFFIX, is_pickle, safe_path

SCHEMA_VERSION = 1
MAX_MANIFEST_BYTES = 8 << 20
"""A larger ``manifest.json`` is not read: ours have a few kilobytes."""

IDENTITY_KEYS: tuple[str, ...] = (
    "kind",
    "weights",
    "base",
    "task",
    "suite",
    "method",
    "method_settings",
    "run_settings",
    "seed",
    "data",
    "head",
    "placement",
    "metrics",
    "training.steps",
    "training.epochs",
    "training.best_step",
    "training.precision",
    "training.trainable_parameters",
    "training.stopped",
    "parents",
    "runhash",
)
"""What of a manifest enters the digest: everything that says what was trained, on what, with which
settings, from which sources, and what came out (metric values included).

Left out, because the same result may differ in them: ``training.seconds``, ``training.device`` and
``training.threads`` (where they change the result, tensors and metrics show it), ``versions``,
``command``, ``created``, ``verified`` (recorded after the entry is there), and ``schema_version``
(a migration must not change the digest that a composition or a lock has pinned)."""

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

JsonObject = dict[str, Any]


@dataclass(frozen=True)
class Manifest:
    """Typed view of ``manifest.json``; the sections are described in ``_SECTIONS``.

    Attributes:
        kind: ``adapter`` (stage one), ``composition`` (stage two) or ``joint``.
        weights: the format of the trained weights: ``adapters``, ``peft`` or ``delta``.
        metrics: split → metric → ``{"value", "stderr", "n"}``; an undefined value is None.
        placement: the placement signature (any JSON value), None for a composition without one.
        parents: the sources of a composition in their order, each
            ``{"ref", "digest", "task", "method", "seed"}``.
        runhash: lower-case hex, at least 8 digits.
        verified: the record of the repeated evaluation, or None.
        created: ISO 8601 time.
    """

    kind: str
    weights: str
    base: JsonObject
    task: JsonObject
    suite: str
    method: str
    method_settings: JsonObject
    run_settings: JsonObject
    seed: int
    data: JsonObject
    head: JsonObject
    placement: Any
    metrics: dict[str, dict[str, JsonObject]]
    training: JsonObject
    versions: dict[str, str]
    parents: list[JsonObject]
    runhash: str
    command: str
    verified: JsonObject | None
    created: str
    schema_version: int = field(default=SCHEMA_VERSION, kw_only=True)

    def to_dict(self) -> JsonObject:
        """The JSON object; ``Manifest.from_dict(m.to_dict()) == m``."""
        value = {item.name: getattr(self, item.name) for item in fields(self)}
        return {"schema_version": value.pop("schema_version"), **value}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], where: str = "manifest") -> Manifest:
        """Check ``value`` and view it as a manifest.

        Raises:
            ZooError: a key is missing, unknown or of the wrong type, or the schema version is not
                ours; the message names ``where``, the key, and what was expected and found.
        """
        if not isinstance(value, Mapping):
            raise ZooError(f"{where}: expected a JSON object, found {_show(value)}.")
        value = _migrate(dict(value), where)
        known = {item.name for item in fields(cls)}
        for key in known - value.keys():
            raise ZooError(f"{where}: the key {key!r} is missing.")
        for key in value.keys() - known:
            raise ZooError(f"{where}: unknown key {key!r}.{did_you_mean(key, known)}")
        _check_all(value, where)
        return cls(**value)

    def headline(self) -> JsonObject | None:
        """Headline metric on the test split: ``{"value", "stderr", "n"}``, or None.

        Where a task has several test splits, the first whose name starts with ``test``.
        """
        metric = self.task["headline"]
        splits = sorted(
            (s for s in self.metrics if s.startswith("test")), key=lambda s: s != "test"
        )
        for split in splits:
            if metric in self.metrics[split]:
                return self.metrics[split][metric]
        return None


def digest(manifest: Manifest, files: Mapping[str, str]) -> str:
    """Hex sha256 of what an entry is: :data:`IDENTITY_KEYS` and the files that count.

    Args:
        files: relative posix name → hex sha256, of all files of the entry. Config and tensor files
            count (``.json``, ``.safetensors``); the card, the manifest itself and anything else
            do not, so a card may be rewritten and a copy in another format put beside them.
    """
    whole = manifest.to_dict()
    identity = {}
    for key in IDENTITY_KEYS:
        section, _, name = key.partition(".")
        identity[key] = whole[section][name] if name else whole[section]
    counted = {name: value for name, value in files.items() if counts(name)}
    return sha256_json({"manifest": identity, "files": counted})


def counts(name: str) -> bool:
    """Whether the file called ``name`` is part of what an entry is (see :func:`digest`)."""
    return name not in {MANIFEST, CARD} and name.endswith((".json", TENSOR_SUFFIX))


@dataclass(frozen=True)
class Recorded:
    """A ``manifest.json`` as read: the manifest, its digest and the file table."""

    manifest: Manifest
    digest: str
    files: dict[str, JsonObject]


def record(manifest: Manifest, files: Mapping[str, JsonObject]) -> JsonObject:
    """The content of ``manifest.json``: the manifest, its digest, and the file table.

    Args:
        files: relative posix name → ``{"sha256", "bytes"}``.
    """
    table = {name: files[name] for name in sorted(files)}
    value = digest(manifest, {name: item["sha256"] for name, item in table.items()})
    return {**manifest.to_dict(), "digest": value, "files": table}


def read_manifest(path: Path, where: str) -> Recorded:
    """Read and check a ``manifest.json``; no other file is touched.

    Args:
        where: how messages name the entry (its reference).

    Raises:
        FileNotFoundError: there is none.
        ZooError: too large, no JSON, wrong schema, or its digest is not the one it should have.
    """
    value = read_small_json(path, where)
    if not isinstance(value, dict):
        raise ZooError(f"{where}: {MANIFEST} holds {_show(value)}, not a JSON object.")
    stored, files = value.pop("digest", None), value.pop("files", None)
    manifest = Manifest.from_dict(value, where)
    table = _check_files(files, where)
    found = digest(manifest, {name: item["sha256"] for name, item in table.items()})
    if found != stored:
        raise ZooError(
            f"{where}: {MANIFEST} was changed after it was written: its content has the digest "
            f"{found[:16]}…, it says {_show(stored)}."
        )
    return Recorded(manifest, found, table)


def read_small_json(path: Path, where: str) -> Any:
    """Read a JSON file of bounded size and depth, without NaN, and with text that can be written.

    Raises:
        FileNotFoundError: there is none.
        ZooError: anything else that is wrong with it.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_MANIFEST_BYTES + 1)
        if len(data) > MAX_MANIFEST_BYTES:
            raise ZooError(
                f"{where}: {path.name} has more than {MAX_MANIFEST_BYTES} bytes; it is not read."
            )
        text = data.decode("utf-8")
        value = json.loads(text, parse_constant=_no_constant)
        if "\\u" in text:  # an escaped half of a surrogate pair is text that nobody can print
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        return value
    except FileNotFoundError:
        raise
    except RecursionError as error:
        raise ZooError(f"{where}: {path.name} is nested too deeply; it is not read.") from error
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, no JSON, absurd numbers
        raise ZooError(f"{where}: {path.name} cannot be read: {error}.") from error


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


# Old schema version → function that lifts a manifest of it to the next one.
_MIGRATIONS: dict[int, Callable[[JsonObject], JsonObject]] = {}


def _migrate(value: JsonObject, where: str) -> JsonObject:
    version = value.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool):
        raise ZooError(f"{where}: 'schema_version' is {_show(version)}, not a number.")
    if version > SCHEMA_VERSION:
        raise ZooError(
            f"{where}: written in schema version {version}; this mtl reads up to "
            f"{SCHEMA_VERSION}. Update mtl (pip install -U mtl) to read it."
        )
    while version < SCHEMA_VERSION and version in _MIGRATIONS:
        value = _MIGRATIONS[version](value)
        version = value["schema_version"]
    if version != SCHEMA_VERSION:
        raise ZooError(
            f"{where}: schema version {version} does not exist (the first is 1, the current one "
            f"{SCHEMA_VERSION}). The manifest is damaged; remove the entry and train it again."
        )
    return value


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _check(value: Any, types: _Types, where: str) -> None:
    # bool is an int to Python, not to us.
    fits = isinstance(value, types) and (bool in types or not isinstance(value, bool))
    if fits and (not isinstance(value, float) or math.isfinite(value)):
        return
    names = " or ".join("null" if t is _NONE else t.__name__ for t in types)
    raise ZooError(f"{where}: expected {names}, found {_show(value)}.")


def _check_section(value: Any, keys: Mapping[str, _Types], where: str) -> None:
    _check(value, (dict,), where)
    for key, types in keys.items():
        if key not in value:
            raise ZooError(f"{where}: the key {key!r} is missing.")
        _check(value[key], types, f"{where}.{key}")


def _check_all(value: JsonObject, where: str) -> None:
    for key in ("suite", "method", "runhash", "command", "created", "kind", "weights"):
        _check(value[key], (str,), f"{where}.{key}")
    for key in ("method_settings", "run_settings", "head", "metrics", "versions"):
        _check(value[key], (dict,), f"{where}.{key}")
    _check(value["seed"], (int,), f"{where}.seed")
    _check(value["verified"], (dict, _NONE), f"{where}.verified")
    _check(value["parents"], (list,), f"{where}.parents")
    for section, keys in _SECTIONS.items():
        _check_section(value[section], keys, f"{where}.{section}")
    for key, allowed in (("kind", KINDS), ("weights", WEIGHTS)):
        if value[key] not in allowed:
            guess = did_you_mean(value[key], allowed)
            raise ZooError(
                f"{where}.{key}: {_show(value[key])} is none of {', '.join(allowed)}.{guess}"
            )
    if value["seed"] < 0:
        raise ZooError(f"{where}.seed: {value['seed']} is negative.")
    for key, text in (
        ("runhash", value["runhash"]),
        ("base.fingerprint", value["base"]["fingerprint"]),
    ):
        if not _HASH.fullmatch(text):
            raise ZooError(f"{where}.{key}: {_show(text)} is not 8 to 64 lower-case hex digits.")
    for name, size in value["data"]["sizes"].items():
        _check(size, (int,), f"{where}.data.sizes.{name}")
    for name, version in value["versions"].items():
        _check(version, (str, _NONE), f"{where}.versions.{name}")
    for split, metrics in value["metrics"].items():
        _check(metrics, (dict,), f"{where}.metrics.{split}")
        for metric, item in metrics.items():
            _check_section(item, _VALUE, f"{where}.metrics.{split}.{metric}")
    _check_parents(value["parents"], where)


def _check_parents(parents: list[Any], where: str) -> None:
    for number, parent in enumerate(parents):
        place = f"{where}.parents[{number}]"
        _check_section(parent, _PARENT, place)
        if not _DIGEST.fullmatch(parent["digest"]):
            raise ZooError(
                f"{place}.digest: {_show(parent['digest'])} is not 64 lower-case hex digits."
            )
        _check_path(parent["ref"], f"{place}.ref")


def _check_files(files: Any, where: str) -> dict[str, JsonObject]:
    _check(files, (dict,), f"{where}.files")
    seen: dict[str, str] = {}
    for name, item in files.items():
        place = f"{where}.files[{_show(name)}]"
        _check_path(name, place)
        _check_section(item, {"sha256": (str,), "bytes": (int,)}, place)
        if not _DIGEST.fullmatch(item["sha256"]) or item["bytes"] < 0:
            raise ZooError(f"{place}: {_show(item)} is no sha256 and size.")
        if is_pickle(name) or name in {MANIFEST, CARD}:
            raise ZooError(f"{place}: such a file is never part of an entry's file table.")
        if name.lower() in seen:
            raise ZooError(f"{place}: differs from {seen[name.lower()]!r} only in case.")
        seen[name.lower()] = name
    return files


def _check_path(path: str, where: str) -> None:
    try:
        safe_path(path, "path")
    except MtlError as error:
        raise ZooError(f"{where}: {error}") from error
