"""``manifest.json``: what an entry is, how it was made and how good it is.

A manifest is typed at the top (:class:`Manifest`); its sections are JSON objects, described in
:mod:`mtl.zoo.models` and checked in :mod:`mtl.zoo.schema`. Older schema versions are lifted while
they are read (:mod:`mtl.zoo.migration`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from mtl.errors import ZooError
from mtl.files import sha256_json
from mtl.limits import Limits
from mtl.untrusted import load_json
from mtl.zoo.migration import SCHEMA_VERSION, lift
from mtl.zoo.names import CARD, MANIFEST, TENSOR_SUFFIX, is_derived, predictions_of, show
from mtl.zoo.schema import JsonObject, check_files, check_manifest

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


@dataclass(frozen=True)
class Manifest:
    """Typed view of ``manifest.json``; the sections are described in
    :mod:`mtl.zoo.models`.

    Attributes:
        kind: ``adapter`` (stage one), ``composition`` (stage two) or ``joint``.
        weights: the format of the trained weights: ``adapters``, ``peft`` or ``delta``.
        metrics: split → metric → ``{"value", "stderr", "n", "caveat"}``; ``stderr`` is None where
            it cannot be estimated, ``caveat`` says why a value is undefined or degenerate
            (:mod:`mtl.tasks.caveats`; entries of before it was recorded have no such key).
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
            raise ZooError(f"{where}: expected a JSON object, found {show(value)}.")
        value = lift(dict(value), where)
        check_manifest(value, where)
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

    @property
    def control(self) -> str:
        """``permuted``, …, where the other tasks' sources are twins that know nothing.

        See :mod:`mtl.compose.control`; empty for every other run. Such an entry is a measurement
        beside a composition, and is never taken for one.
        """
        found = self.run_settings.get("control", "")
        return found if isinstance(found, str) else show(found)

    @property
    def composes(self) -> bool:
        """Whether it is a composition of sources, and not of their twins."""
        return self.kind == "composition" and not self.control

    def selected_by(self) -> str | None:
        """What picked the stored state: ``dev loss``, ``last step``, …; None where unknown."""
        found = self.training.get("selected_by")
        return found if isinstance(found, str) else None


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
    """Whether the file called ``name`` is part of what an entry is (see :func:`digest`).

    Of what follows from the other files only the answers on the test split are: the others came
    later, and what was made before them and is made again today is to be the same entry.
    """
    if name in {MANIFEST, CARD} or not name.endswith((".json", TENSOR_SUFFIX)):
        return False
    return not is_derived(name) or (predictions_of(name) or ("", ""))[0] == "test"


@dataclass(frozen=True)
class Recorded:
    """A ``manifest.json`` as read: the manifest, its digest and the file table.

    ``schema_version`` is that of the file; the manifest itself is always of the current one.
    """

    manifest: Manifest
    digest: str
    files: dict[str, JsonObject]
    schema_version: int


def record(manifest: Manifest, files: Mapping[str, JsonObject]) -> JsonObject:
    """The content of ``manifest.json``: the manifest, its digest, and the file table.

    Args:
        files: relative posix name → ``{"sha256", "bytes"}``, of safetensors files with their
            ``"tensors"``: see :func:`mtl.zoo.check.file_table`.
    """
    table = {name: files[name] for name in sorted(files)}
    value = digest(manifest, {name: item["sha256"] for name, item in table.items()})
    return {**manifest.to_dict(), "digest": value, "files": table}


def read_manifest(path: Path, where: str, limits: Limits | None = None) -> Recorded:
    """Read and check a ``manifest.json``; no other file is touched.

    Args:
        where: how messages name the entry (its reference).
        limits: what is read at most; None for :func:`mtl.limits.current`.

    Raises:
        FileNotFoundError: there is none.
        ZooError: too large, no JSON, wrong schema, or its digest is not the one it should have.
    """
    # A link is followed: a cache of the Hub has such. Zoo and intake refuse links before.
    return check_recorded(load_json(path, f"{where}: {path.name}", limits, follow=True), where)


def check_recorded(value: Any, where: str) -> Recorded:
    """The content of a ``manifest.json`` as JSON, checked. Raises as :func:`read_manifest`."""
    if not isinstance(value, dict):
        raise ZooError(f"{where}: {MANIFEST} holds {show(value)}, not a JSON object.")
    value = dict(value)
    version = value.get("schema_version")
    stored, files = value.pop("digest", None), value.pop("files", None)
    manifest = Manifest.from_dict(value, where)
    table = check_files(files, where, headers=version != 1)
    found = digest(manifest, {name: item["sha256"] for name, item in table.items()})
    if found != stored:
        raise ZooError(
            f"{where}: {MANIFEST} was changed after it was written: its content has the digest "
            f"{found[:16]}…, it says {show(stored)}."
        )
    return Recorded(manifest, found, table, int(version or 0))
