"""Tokenised splits: encoded once, kept ragged, padded only when a batch is made."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.errors import MtlError, RequestError
from mtl.files import sha256_bytes, sha256_json

if TYPE_CHECKING:
    import torch

    from mtl.tasks.data import Split, TaskData

_log = logging.getLogger(__name__)

ENCODING_VERSION = 2
"""Raised when the same texts would be encoded differently."""


@dataclass(frozen=True)
class Encoded:
    """One split as token ids, without padding.

    Attributes:
        name: of the split.
        labels: (n,) or (n,C).
        row: (n,) int64, the row's number in its split.
        choices: encodings per row (1, except for multiple choice).
        ids: all token ids; those of encoding e are ``ids[start[e]:start[e+1]]``.
        types: token types in the same order, or None where the encoder has none.
        start: (n·choices + 1,).
        lengths: (n,) tokens of the longest encoding of a row.
        truncated: how many encodings lost tokens at ``max_length``.
        table: what decoding needs beside the logits.
        pad_id: the tokenizer's padding id.
        fingerprint: of data, tokenizer and settings.
    """

    name: str
    labels: np.ndarray
    row: np.ndarray
    choices: int
    ids: np.ndarray
    types: np.ndarray | None
    start: np.ndarray
    lengths: np.ndarray
    truncated: int
    table: Mapping[str, Any]
    pad_id: int
    fingerprint: str

    def __len__(self) -> int:
        return len(self.row)

    def collate(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """The rows as tensors, padded to the longest of them.

        Returns:
            ``input_ids``, ``attention_mask`` and, where the encoder has them, ``token_type_ids``,
            each (N,T) int64 with N = B·choices; ``labels`` (B,) or (B,C); ``row`` (B,) int64.
        """
        import torch

        rows = np.asarray(rows)
        encodings = (rows[:, None] * self.choices + np.arange(self.choices)).reshape(-1)
        begin, lengths = self.start[encodings], np.diff(self.start)[encodings]
        columns = np.arange(int(lengths.max()))
        mask = columns[None, :] < lengths[:, None]
        # Positions behind an encoding's end are read somewhere valid and then overwritten.
        places = np.where(mask, begin[:, None] + columns[None, :], 0)
        batch = {
            "input_ids": np.where(mask, self.ids[places], self.pad_id).astype(np.int64),
            "attention_mask": mask.astype(np.int64),
        }
        if self.types is not None:
            batch["token_type_ids"] = np.where(mask, self.types[places], 0).astype(np.int64)
        batch["labels"] = self.labels[rows]
        batch["row"] = self.row[rows]
        return {name: torch.from_numpy(values) for name, values in batch.items()}


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """Hex sha256 of a fast tokenizer's state, without its current padding and truncation."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["truncation"] = state["padding"] = None
    return sha256_bytes(json.dumps(state, sort_keys=True).encode())


def encode(
    data: TaskData,
    split: str,
    tokenizer: Any,
    *,
    max_length: int | None = None,
    cache: Path | None = None,
) -> Encoded:
    """Tokenise a split: pairs as the tokenizer joins them, longest part cut first.

    Args:
        data: the task's data.
        split: a key of ``data.splits``.
        tokenizer: a fast tokenizer.
        max_length: tokens per encoding at most, None for the task's, or for the tokenizer's own
            limit where that is lower.
        cache: folder of encoded splits; a damaged or unwritable file there costs only time.

    Raises:
        RequestError: no such split, a slow tokenizer, one without padding token, or a length
            beyond the tokenizer's limit.
    """
    if split not in data.splits:
        raise RequestError(
            f"Task {data.spec.id!r} has no split {split!r}; it has {', '.join(data.splits)}."
        )
    if not getattr(tokenizer, "is_fast", False):
        raise RequestError(
            f"{type(tokenizer).__name__} is a slow tokenizer; mtl needs a fast one (a folder with "
            "tokenizer.json)."
        )
    if tokenizer.pad_token_id is None:
        raise RequestError(
            f"The tokenizer {type(tokenizer).__name__} has no padding token; mtl needs one."
        )
    limit = int(min(tokenizer.model_max_length, 1 << 30))  # "no limit" is a huge float
    if max_length is not None and max_length > limit:
        raise RequestError(
            f"max_length={max_length} is more than the {limit} tokens that the tokenizer "
            f"{tokenizer.name_or_path!r} allows."
        )
    length = max_length or min(data.spec.max_length, limit)
    fingerprint = sha256_json(
        {
            "version": ENCODING_VERSION,
            "data": data.fingerprints[split],
            "tokenizer": tokenizer_fingerprint(tokenizer),
            "max_length": length,
            "pad": tokenizer.pad_token_id,
        }
    )
    rows = data.splits[split]
    path = cache / fingerprint[:2] / f"{fingerprint}.safetensors" if cache else None
    arrays = _read(path)
    if arrays is None:
        arrays = _tokenise(rows, tokenizer, length)
        if path is not None:
            _write(path, arrays)
    lengths = np.diff(arrays["start"])
    return Encoded(
        name=split,
        labels=rows.labels,
        row=np.arange(len(rows), dtype=np.int64),
        choices=1,
        ids=arrays["ids"],
        types=arrays.get("types"),
        start=arrays["start"],
        lengths=lengths,
        truncated=int(arrays["truncated"][0]),
        table=rows.table,
        pad_id=int(tokenizer.pad_token_id),
        fingerprint=fingerprint,
    )


def _tokenise(rows: Split, tokenizer: Any, max_length: int) -> dict[str, np.ndarray]:
    from tqdm import tqdm

    has_types = "token_type_ids" in tokenizer.model_input_names
    pieces: list[np.ndarray] = []
    types: list[np.ndarray] = []
    truncated = 0
    step = 4096
    bar = tqdm(total=len(rows), desc="tokenise", unit="row", leave=False, disable=None, delay=1)
    with bar:
        for begin in range(0, len(rows), step):
            parts = [texts[begin : begin + step] for texts in rows.texts]
            found = tokenizer(
                *parts,
                truncation="longest_first" if len(parts) == 2 else True,
                max_length=max_length,
                padding=False,
                return_attention_mask=False,
                return_token_type_ids=has_types,
                verbose=False,
            )
            pieces += [np.asarray(ids, dtype=np.int32) for ids in found["input_ids"]]
            if has_types:
                types += [np.asarray(ids, dtype=np.int8) for ids in found["token_type_ids"]]
            truncated += sum(bool(item.overflowing) for item in found.encodings)
            bar.update(len(parts[0]))
    arrays = {
        "ids": np.concatenate(pieces),
        "start": np.cumsum([0, *map(len, pieces)], dtype=np.int64),
        "truncated": np.asarray([truncated], dtype=np.int64),
    }
    if has_types:
        arrays["types"] = np.concatenate(types)
    return arrays


def _read(path: Path | None) -> dict[str, np.ndarray] | None:
    """What :func:`_write` wrote there, or None if it is not there or not the same any more."""
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


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
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
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()
