"""``predictions.safetensors`` and its kin: what an entry answered on a split, row by row."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl.errors import ZooError
from mtl.files import write_bytes
from mtl.untrusted import read_header
from mtl.zoo.names import predictions_file

_NAMES = ("row", "label", "prediction", "scores")


@dataclass(frozen=True)
class Predictions:
    """Answers on one split, sorted by row.

    Attributes:
        row: (N,) int64, the example's number in its split; each once.
        label: (N,) or (N, C): int64 classes, or float32 values.
        prediction: the decoded answer, of the shape of ``label``.
        scores: (N, C) float32, what the head gave (logits or values).
    """

    row: NDArray[Any]
    label: NDArray[Any]
    prediction: NDArray[Any]
    scores: NDArray[Any]


def write_predictions(
    folder: Path, name: str, row: Any, label: Any, prediction: Any, scores: Any
) -> Path:
    """Write ``folder/name`` atomically, sorted by row; arrays or torch tensors; returns the path.

    Integers are stored as int64, floats as float32.

    Raises:
        ValueError: lengths differ, rows repeat, or a shape is wrong.
        RunError: the system refuses.
    """
    from safetensors.numpy import save

    values = Predictions(
        _array(row), _array(label), _array(prediction), _array(scores).astype(np.float32)
    )
    wrong = _wrong(values)
    if wrong:
        raise ValueError(f"predictions for {name}: {wrong}")
    order = np.argsort(values.row, kind="stable")
    path = Path(folder) / name
    arrays = {key: np.ascontiguousarray(getattr(values, key)[order]) for key in _NAMES}
    write_bytes(path, save(arrays))
    return path


def read_predictions(folder: Path, name: str = predictions_file()) -> Predictions:
    """Read what :func:`write_predictions` wrote.

    Raises:
        ZooError: missing, damaged, or not of that form.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = Path(folder) / name
    if not path.is_file():
        raise ZooError(f"{path} is missing: the entry stores no predictions under this name.")
    try:
        declared = read_header(path, name).tensors
        strange = sorted({info.dtype for info in declared.values()} - {"I64", "F32"})
        if strange:  # numpy has no bfloat16, for one
            raise ZooError(f"predictions are I64 and F32, not {', '.join(strange)}.")
        arrays = load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, ZooError) as error:
        raise ZooError(f"{path} is damaged and cannot be read as safetensors: {error}") from error
    if set(arrays) != set(_NAMES):
        raise ZooError(f"{path} holds {sorted(arrays)}; predictions have {sorted(_NAMES)}.")
    values = Predictions(**arrays)
    wrong = _wrong(values)
    if wrong:
        raise ZooError(f"{path} holds no predictions: {wrong}.")
    return values


def _array(value: Any) -> NDArray[Any]:
    if hasattr(value, "detach"):  # a torch tensor, told apart without importing torch
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() else value
    array = np.asarray(value)
    if array.size == 0 or array.dtype.kind in "iub":
        return array.astype(np.int64)
    return array.astype(np.float32)


def _wrong(values: Predictions) -> str:
    rows = len(values.row) if values.row.ndim == 1 else -1
    if rows < 0 or values.row.dtype != np.int64:
        return f"row is {values.row.dtype} of shape {values.row.shape}, not int64 of (N,)"
    if values.scores.shape[:1] != (rows,) or values.scores.ndim != 2:
        return f"scores have the shape {values.scores.shape}, not ({rows}, C)"
    if values.label.ndim not in {1, 2} or len(values.label) != rows:
        return f"label has the shape {values.label.shape}, not ({rows},) or ({rows}, C)"
    if values.prediction.shape != values.label.shape:
        return f"prediction has the shape {values.prediction.shape}, label {values.label.shape}"
    if len(np.unique(values.row)) != rows:
        return "a row is there twice"
    return ""
