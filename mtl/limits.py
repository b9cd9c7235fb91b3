"""How much a file from outside may ask of us: sizes, counts and depths, always on.

The defaults are far above what entries of ours need and far below what hurts a machine.
``MTL_LIMITS="file_bytes=2GiB,files=100"`` changes them for a process.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from mtl.errors import RequestError, unknown

VARIABLE = "MTL_LIMITS"
_VALUE = re.compile(r"([0-9]+)\s*([kmgt]i?b?)?", re.IGNORECASE)
_UNITS = {"k": 10, "m": 20, "g": 30, "t": 40}


@dataclass(frozen=True)
class Limits:
    """What is read of a file or folder that may come from a stranger.

    Attributes:
        json_bytes: size of a JSON file.
        json_depth: lists and objects inside each other.
        json_values: values in one JSON file, counted by its commas and brackets.
        header_bytes: size of the header of a safetensors file.
        tensors: tensors in one file.
        name_length: characters in the name of a tensor or a metadata key.
        rank: axes of a tensor.
        files: files and folders of one entry.
        file_bytes: size of one file.
        entry_bytes: size of all files of one entry.
        load_elements: elements of all new tensors while one entry is loaded into an encoder.

    Raises:
        RequestError: a limit is not a positive whole number.
    """

    json_bytes: int = 8 << 20
    json_depth: int = 64
    json_values: int = 1_000_000
    header_bytes: int = 16 << 20
    tensors: int = 50_000
    name_length: int = 1_000
    rank: int = 8
    files: int = 2_000
    file_bytes: int = 16 << 30
    entry_bytes: int = 64 << 30
    load_elements: int = 1 << 28

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise RequestError(f"The limit {item.name} must be at least 1, it is {value!r}.")

    @classmethod
    def parse(cls, text: str, where: str = VARIABLE) -> Limits:
        """Limits from ``name=value,…``; units KiB, MiB, GiB and TiB (or K, M, G, T) are allowed.

        Raises:
            RequestError: an unknown name, or no number.
        """
        known = {item.name for item in fields(cls)}
        values: dict[str, int] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, equals, value = (piece.strip() for piece in part.partition("="))
            if name not in known:
                raise unknown(f"limit in {where}", name, known)
            found = _VALUE.fullmatch(value)
            if not equals or not found or len(found[1]) > 15:
                raise RequestError(
                    f"{where}: {part!r} is no limit; write {name}=NUMBER, for example "
                    f"{name}={getattr(cls(), name)} or, for sizes, {name}=2GiB."
                )
            unit = (found[2] or "").lower()[:1]
            values[name] = int(found[1]) << _UNITS.get(unit, 0)
        return replace(cls(), **values)


_parsed: dict[str, Limits] = {"": Limits()}


def current(environment: Mapping[str, str] = os.environ) -> Limits:
    """The limits of this process: the defaults, changed by ``MTL_LIMITS``.

    Raises:
        RequestError: the variable holds an unknown name, or no number.
    """
    text = environment.get(VARIABLE, "")
    if text not in _parsed:
        _parsed[text] = Limits.parse(text)
    return _parsed[text]
