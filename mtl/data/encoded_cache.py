"""Files of encoded splits: written whole, checked when read, never trusted further than that."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mtl.errors import MtlError

_log = logging.getLogger(__name__)


def read_arrays(path: Path | None) -> dict[str, np.ndarray] | None:
    """What :func:`write_arrays` wrote there, or None: not there, or not the same any more."""
    from safetensors import SafetensorError, safe_open

    if path is None or not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as stream:
            arrays = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
            if (stream.metadata() or {}).get("sha256") == _hash(arrays):
                return arrays
    except (OSError, SafetensorError, ValueError):
        pass
    _log.warning("%s is damaged; encoding again.", path)
    return None


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Keep ``arrays`` at ``path``; where that fails, it is logged and costs only time."""
    from safetensors.numpy import save

    from mtl.files import write_bytes

    try:
        write_bytes(path, save(arrays, {"sha256": _hash(arrays)}))
    except (MtlError, OSError) as error:
        # It saves time only; a run that needs the space for its results will say so itself.
        _log.warning("Encoded data are not cached: %s", error)


def _hash(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name}:{arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
