"""Reading files that a stranger may have written: JSON, what it asks a loader for, and the headers
of safetensors.

Nothing here trusts a size, a name, a number or a nesting depth that a file declares. Whatever is
wrong with a file ends in one :class:`ZooError` that names the file and what is wrong, before memory
is taken for what it declares.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from mtl.errors import ZooError
from mtl.limits import Limits, current

WIDTHS = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4,
    "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip
"""Bytes per element of the types that a safetensors file of ours, or of ``adapters``, can hold."""

_ELEMENTS = 1 << 48
_DIGITS = 40
"""Longest integer in JSON: beyond every count, and still a number for float arithmetic."""
_SURROGATE = re.compile("[\ud800-\udfff]")


class _RefusedError(ValueError):
    """Well-formed JSON that is not taken all the same."""


def open_regular(path: Path, where: str, *, follow: bool = False) -> BinaryIO:
    """Open a regular file for reading: no link, no pipe that would block, no device.

    Args:
        where: how messages name the file.
        follow: allow ``path`` itself to be a symbolic link (a cache of the Hub has such).

    Raises:
        FileNotFoundError: there is none.
        ZooError: it is something else, or the system refuses.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    if not follow:
        flags |= getattr(os, "O_NOFOLLOW", 0)
    try:
        if not follow and path.is_symlink():
            raise ZooError(f"{where} is a symbolic link; it is not followed.")
        handle = os.open(path, flags)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise ZooError(f"{where} cannot be read: {_reason(error)}.") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ZooError(f"{where} is not a regular file.")
    return os.fdopen(handle, "rb")


def load_json(path: Path, where: str, limits: Limits | None = None, *, follow: bool = False) -> Any:
    """The value in the JSON file ``path``, read within ``limits``; see :func:`parse_json`.

    Raises:
        FileNotFoundError: there is none.
        ZooError: anything else that is wrong with it.
    """
    limits = limits or current()
    with open_regular(path, where, follow=follow) as stream:
        try:
            data = stream.read(limits.json_bytes + 1)
        except OSError as error:
            raise ZooError(f"{where} cannot be read: {_reason(error)}.") from error
    return parse_json(data, where, limits)


def parse_json(data: bytes, where: str, limits: Limits | None = None) -> Any:
    """The value of ``data``: UTF-8, one JSON text, bounded in size, depth and number of values.

    Refused although Python would take them: a key that an object has twice, NaN and infinite
    numbers, integers of more than 40 digits, and halves of surrogate pairs, which no file can hold.

    Raises:
        ZooError: says what is wrong.
    """
    limits = limits or current()
    if len(data) > limits.json_bytes:
        raise ZooError(f"{where} has more than {limits.json_bytes} bytes (limit json_bytes).")
    if sum(map(data.count, (b",", b"[", b"{"))) > limits.json_values:
        raise ZooError(f"{where} holds more than {limits.json_values} values (limit json_values).")
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_float=_float,
            parse_int=_int,
        )
        if b"\\u" in data and _SURROGATE.search(json.dumps(value, ensure_ascii=False)):
            raise _RefusedError("it holds half of a surrogate pair, which is no text")
        deep = _depth_beyond(value, limits.json_depth)
    except RecursionError:
        deep = True
    except ValueError as error:  # no UTF-8, no JSON, or one of the refusals
        raise ZooError(f"{where} cannot be read as JSON: {error}.") from error
    if deep:
        raise ZooError(f"{where} is nested deeper than {limits.json_depth} (limit json_depth).")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _RefusedError(f"the key {twice[:60]!r} is there twice")
    return value


def _constant(name: str) -> Any:
    raise _RefusedError(f"{name} is not JSON")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _RefusedError(f"{text[:40]} is beyond every floating-point number")
    return value


def _int(text: str) -> int:
    if len(text) > _DIGITS:
        raise _RefusedError(f"a number of {len(text)} digits")
    return int(text)


def _depth_beyond(value: Any, depth: int) -> bool:
    """Whether containers lie deeper inside each other than ``depth``; level by level."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(depth):
        level = [
            item
            for container in level
            for item in (container.values() if isinstance(container, dict) else container)
            if isinstance(item, dict | list)
        ]
        if not level:
            return False
    return bool(level)


ORDERS = {
    "auto_map", "custom_pipelines", "custom_pipeline", "trust_remote_code", "custom_code",
    "custom_generate", "code_revision", "_target_", "class_path", "__reduce__", "__class__",
    "_partial_", "py_file",
    # by which a config of transformers reads one of its keys as another one
    "attribute_map", "sub_configs",
    # another config than the one that was read; weights of another name, perhaps pickled
    "configuration_files", "transformers_weights",
    # packages that a quantised model, or a layer of peft, imports and runs
    "quantization_config", "compression_config", "megatron_config",
}  # fmt: skip
"""Keys of configs by which some loader imports, fetches or reads something else."""
_IMPLEMENTATION = re.compile(r"_?[a-z]+_implementation(_internal|_autoset)?")
_IMPLEMENTATIONS = (None, False, "eager", "sdpa")
"""What `transformers` computes itself; by every other name it imports a package or fetches one."""


def asks_for_code(value: Any) -> str | None:
    """The first key anywhere in a config that some loader takes as an order to import or to fetch.

    That is: `auto_map` and the like; an attention or other `…_implementation` beside torch's own
    (with the package `kernels`, `transformers` fetches the repository of that name from the Hub and
    runs it: CVE-2026-4372), and every `…_implementation_internal`, which nothing writes; configs of
    quantisation; what names other files to be read in place of those that were looked at; and what
    gives keys other names.
    """
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, list):
            todo += item
        if not isinstance(item, dict):
            continue
        for key, inner in item.items():
            # "trust_remote_code": false orders nothing
            if key in ORDERS and inner not in (None, False, {}, []):
                return str(key)
            # peft names the library that its automatic classes import
            if key == "parent_library" and not str(inner).startswith("transformers."):
                return str(key)
            found = _IMPLEMENTATION.fullmatch(key)
            if found and not _OWN[found[1]](inner):
                return str(key)
        todo += item.values()
    return None


def _own(implementation: Any) -> bool:
    """Whether `transformers` computes it itself; a composite model names one per part."""
    if isinstance(implementation, dict):
        return all(map(_own, implementation.values()))
    return any(implementation is one or implementation == one for one in _IMPLEMENTATIONS)


_OWN = {
    None: _own,
    "_internal": lambda value: not value,
    "_autoset": lambda value: value in (None, False, True),  # whether it was chosen: some wrote it
}
"""End of the key `…_implementation` → whether a value orders nothing."""


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a header: type, shape, and where its bytes lie after the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """The header of a safetensors file, checked.

    Attributes:
        tensors: by name, in the order of the file's bytes.
        metadata: text by text.
        start: where the bytes of the tensors begin in the file.
    """

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    start: int


def read_header(
    path: Path, where: str, limits: Limits | None = None, *, follow: bool = False
) -> Header:
    """The header of the safetensors file ``path``; none of its tensors is read.

    Every byte after the header belongs to exactly one tensor, of the size that its type and shape
    need: nothing overlaps, nothing is left over, nothing lies outside the file. That, and the types
    of what the header says, ``safetensors`` checks. What it lets through is refused here: headers
    beyond the limits, names twice, empty or unprintable, further keys, more axes or larger ones
    than a file can hold, types that none of ours has.

    Raises:
        FileNotFoundError: there is none.
        ZooError: anything else that is wrong with it.
    """
    from safetensors import SafetensorError, safe_open

    limits = limits or current()
    with open_regular(path, where, follow=follow) as stream:
        try:
            length = int.from_bytes(stream.read(8), "little")
            if length > limits.header_bytes:
                raise ZooError(
                    f"{where} declares a header of {length} bytes, at most {limits.header_bytes} "
                    "are read (limit header_bytes)."
                )
            text = stream.read(length)
            with safe_open(path, "numpy"):
                pass
        except (OSError, SafetensorError) as error:
            raise ZooError(f"{where} cannot be read: {_reason(error)}.") from error
    value = parse_json(
        text.rstrip(b" "),
        f"the header of {where}",
        replace(limits, json_bytes=limits.header_bytes, json_values=16 * limits.tensors),
    )
    metadata = value.pop("__metadata__", {})
    if not isinstance(metadata, dict) or any(len(key) > limits.name_length for key in metadata):
        raise ZooError(f"{where}: its __metadata__ is no object of texts.")
    if len(value) > limits.tensors:
        raise ZooError(f"{where} has {len(value)} tensors, at most {limits.tensors} are read.")
    tensors = [(name, _tensor(name, item, where, limits)) for name, item in value.items()]
    ordered = sorted(tensors, key=lambda pair: (pair[1].begin, pair[1].end))
    return Header(dict(ordered), metadata, 8 + length)


def _tensor(name: str, value: Any, where: str, limits: Limits) -> TensorInfo:
    place = f"{where}: tensor {_show(name)}"
    if not name or len(name) > limits.name_length or not name.isprintable():
        raise ZooError(f"{place}: no name of a tensor (empty, too long, or unprintable).")
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise ZooError(f"{place}: expected dtype, shape and data_offsets, found {_show(value)}.")
    dtype, shape = value["dtype"], value["shape"]
    if not isinstance(dtype, str) or dtype not in WIDTHS:
        raise ZooError(f"{place}: unknown dtype {_show(dtype)}.")
    if len(shape) > limits.rank:
        raise ZooError(f"{place}: {_show(shape)} is no shape of at most {limits.rank} axes.")
    # The shape of an empty tensor declares no byte: its other axes have to be possible as well.
    if math.prod(max(axis, 1) for axis in shape) > _ELEMENTS:
        raise ZooError(f"{place}: {_show(tuple(shape))} is no shape that any file can hold.")
    return TensorInfo(dtype, tuple(shape), *value["data_offsets"])


def pieces(
    path: Path, header: Header, where: str, size: int = 1 << 22
) -> Iterator[tuple[str, bytes]]:
    """The bytes of the tensors as (name, up to ``size`` bytes), in the order of the file.

    Raises:
        ZooError: the file became shorter, or the system refuses.
    """
    with open_regular(path, where) as stream:
        stream.seek(header.start)
        for name, info in header.tensors.items():
            left = info.end - info.begin
            while left:
                data = stream.read(min(size, left))
                if not data:
                    raise ZooError(f"{where} was cut while it was read.")
                left -= len(data)
                yield name, data


def _show(value: Any) -> str:
    text = repr(value) if not isinstance(value, dict | list) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _reason(error: Exception) -> str:
    text = str(getattr(error, "strerror", None) or error)[:300]  # a library's may hold any name
    return text if text.isprintable() else ascii(text)
