"""Schema versions of ``manifest.json``, and how an older one becomes the current one.

1. the first.
2. the file table gives, for every safetensors file, ``tensors``: dtype and shape by name. So what
   an entry holds is known, and can be refused, before its tensors are fetched or opened.
3. ``base`` says what decides the function: ``weights`` (their hash, which ``fingerprint`` was),
   ``config`` and ``pooler``; ``fingerprint`` covers all of it and the tokenizer. What an older
   entry does not know is not made up: it keeps the weights' hash as its fingerprint, and is
   compared by what it knows (:mod:`mtl.backbone.identity`).

An older manifest is lifted while it is read (:func:`lift`); the file stays as it is until
``mtl zoo migrate`` rewrites it. The keys of the identity, and so the digest that a composition or a
lock has pinned, are the same in every version: a step that changes one of them is a defect.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mtl.errors import ZooError

SCHEMA_VERSION = 3

JsonObject = dict[str, Any]


def _tensors_in_the_file_table(value: JsonObject) -> JsonObject:
    # The headers themselves are in the files; the table is completed when it is next written.
    return {**value, "schema_version": 2}


def _function_of_the_base(value: JsonObject) -> JsonObject:
    # Of the base an older entry knows the weights; a config that was not recorded stays unknown.
    return {**value, "schema_version": 3}


STEPS: dict[int, Callable[[JsonObject], JsonObject]] = {
    1: _tensors_in_the_file_table,
    2: _function_of_the_base,
}
"""Schema version → what makes a manifest of it one of the next."""


def lift(value: JsonObject, where: str) -> JsonObject:
    """``value`` in the current schema version; of any other it is changed step by step.

    Raises:
        ZooError: the version is no number, of a later mtl, or none that ever was.
    """
    version = value.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool):
        raise ZooError(f"{where}: 'schema_version' is {version!r:.60}, not a number.")
    if version > SCHEMA_VERSION:
        raise ZooError(
            f"{where}: written in schema version {version}; this mtl reads up to "
            f"{SCHEMA_VERSION}. Update mtl to read it."
        )
    while version < SCHEMA_VERSION and version in STEPS:
        value = STEPS[version](value)
        version = value["schema_version"]
    if version != SCHEMA_VERSION:
        raise ZooError(
            f"{where}: schema version {version} does not exist (the first is 1, the current one "
            f"{SCHEMA_VERSION}). The manifest is damaged; remove the entry and train it again."
        )
    return value
