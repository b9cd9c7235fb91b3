"""Tensors of an entry as numpy arrays, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl.errors import ZooError
from mtl.untrusted import pieces, read_header

_KINDS = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "U8": "u1",
    "BOOL": "?",
}


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All tensors of a safetensors file; bfloat16, which numpy has not, as float32.

    Raises:
        FileNotFoundError: there is none.
        ZooError: damaged, or of a type that is not compared.
    """
    header = read_header(path, path.name)
    data: dict[str, bytearray] = {name: bytearray() for name in header.tensors}
    for name, piece in pieces(path, header, path.name):
        data[name] += piece
    found = {}
    for name, info in header.tensors.items():
        if info.dtype == "BF16":
            bits = np.frombuffer(data[name], "<u2").astype(np.uint32) << 16
            array: NDArray[Any] = bits.view(np.float32)
        elif info.dtype in _KINDS:
            array = np.frombuffer(data[name], _KINDS[info.dtype])
        else:
            raise ZooError(f"{path.name}: tensors of type {info.dtype} are not compared.")
        found[name] = array.reshape(info.shape)
    return found
