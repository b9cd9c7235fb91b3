"""Tokenised splits: encoded once, kept ragged, padded only when a batch is made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.data.encoded_cache import read_arrays, write_arrays
from mtl.data.pairs import paired
from mtl.data.tokenise import (
    tokenise,
    tokenise_left,
    tokenise_shared,
    tokenise_windows,
    tokenizer_options,
)
from mtl.errors import RequestError
from mtl.files import sha256_bytes, sha256_json
from mtl.tasks.kinds import KINDS

if TYPE_CHECKING:
    from mtl.data.task_data import TaskData

ENCODING_VERSION = 3
"""Raised when the same texts would be encoded differently, or files may hold others' encodings."""


@dataclass(frozen=True)
class SharedFirsts:
    """First parts that several encodings have in common.

    Attributes:
        ids, types, start: the parts, as in :class:`Encoded`.
        lead: (n·choices,) which part an encoding begins with.
        cut: (n·choices,) how many tokens of it.
    """

    ids: np.ndarray
    types: np.ndarray | None
    start: np.ndarray
    lead: np.ndarray
    cut: np.ndarray


@dataclass(frozen=True)
class Encoded:
    """One split as token ids, without padding.

    Attributes:
        name: of the split.
        labels: (n,) or (n,C).
        row: (n,) int64, the row's number in its split. Of a span extraction a row is a window.
        choices: encodings per row (1, except for multiple choice).
        ids: all token ids; those of encoding e are ``ids[start[e]:start[e+1]]``, behind its share
            of ``shared`` where there is one: :meth:`tokens` puts them together.
        types: token types in the same order, or None where the encoder has none.
        start: (n·choices + 1,).
        lengths: (n,) tokens of the longest encoding of a row, at least 1: an empty text of which
            the tokenizer makes no token is read as one padding token.
        truncated: how many encodings (of a span extraction: examples) lost tokens at ``max_length``
            or went into several windows.
        table: what decoding and metrics need beside the logits.
        pad_id: the tokenizer's padding id.
        fingerprint: of data, tokenizer and settings.
        shared: first parts that are held once, or None.
        groups: the group of each row, where gates go by one (:class:`mtl.data.reading.Split`).
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
    shared: SharedFirsts | None = None
    groups: list[str] | None = None

    def __len__(self) -> int:
        return len(self.row)

    @property
    def tokens_per_row(self) -> np.ndarray:
        """(n,) tokens that a row takes in a batch whose longest it is: all of its choices."""
        return self.lengths * self.choices

    def tokens(self, row: int) -> list[np.ndarray]:
        """The token ids of a row, one array per choice, as the encoder reads them."""
        found = []
        for encoding in range(row * self.choices, (row + 1) * self.choices):
            own = self.ids[self.start[encoding] : self.start[encoding + 1]]
            if self.shared is not None:
                begin = self.shared.start[self.shared.lead[encoding]]
                lead = self.shared.ids[begin : begin + self.shared.cut[encoding]]
                own = np.concatenate([lead, own])
            found.append(own if len(own) else np.asarray([self.pad_id], own.dtype))
        return found

    def collate(self, rows: np.ndarray) -> dict[str, Any]:
        """The rows as tensors, padded to the longest of them.

        Returns:
            ``input_ids``, ``attention_mask`` and, where the encoder has them, ``token_type_ids``,
            each (N,T) int64 with N = B·choices; ``labels`` (B,) or (B,C); ``row`` (B,) int64;
            where there are groups, ``group``, a list of B names.
        """
        import torch

        rows = np.asarray(rows)
        encodings = (rows[:, None] * self.choices + np.arange(self.choices)).reshape(-1)
        begin = self.start[encodings]
        own = self.start[encodings + 1] - begin
        shared = self.shared
        cut = np.zeros_like(own) if shared is None else shared.cut[encodings].astype(np.int64)
        # No row is without a token: what it answered would hang on those that it is padded with.
        sizes = np.maximum(cut + own, 1)
        columns = np.arange(int(sizes.max()))
        mask = columns[None, :] < sizes[:, None]
        behind = (columns[None, :] >= cut[:, None]) & (columns[None, :] < (cut + own)[:, None])
        # Positions outside of a part are read somewhere valid and then overwritten.
        places = np.where(behind, (begin - cut)[:, None] + columns[None, :], 0)

        def fill(values: np.ndarray, lead: np.ndarray | None, padding: int) -> np.ndarray:
            if not len(values):
                values = np.zeros(1, np.int64)
            found = np.where(behind, values[places], padding).astype(np.int64)
            if shared is None or lead is None or not len(lead):
                return found
            before = columns[None, :] < cut[:, None]
            at = np.where(before, shared.start[shared.lead[encodings]][:, None] + columns, 0)
            return np.where(before, lead[at], found).astype(np.int64)

        batch = {
            "input_ids": fill(self.ids, shared.ids if shared else None, self.pad_id),
            "attention_mask": mask.astype(np.int64),
        }
        if self.types is not None:
            batch["token_type_ids"] = fill(self.types, shared.types if shared else None, 0)
        batch["labels"] = self.labels[rows]
        batch["row"] = self.row[rows]
        tensors: dict[str, Any] = {name: torch.from_numpy(v) for name, v in batch.items()}
        if self.groups is not None:
            tensors["group"] = [self.groups[row] for row in rows]
        return tensors


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """Hex sha256 of a fast tokenizer's state, without its current padding and truncation."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["truncation"] = state["padding"] = None
    return sha256_bytes(json.dumps(state, sort_keys=True).encode())


def token_limit(tokenizer: Any) -> int:
    """Tokens that the tokenizer allows in one encoding; "no limit" is 2^30."""
    return int(min(tokenizer.model_max_length, 1 << 30))


def encode(
    data: TaskData,
    split: str,
    tokenizer: Any,
    *,
    max_length: int | None = None,
    cache: Path | None = None,
    words: str | None = None,
) -> Encoded:
    """Tokenise a split as its kind of task asks: pairs as the tokenizer, or the task, joins them.

    What does not fit is cut from the longest text, or, with ``truncate: first``, from the first;
    then each distinct first text is tokenised and held once. Multiple choice: the context with each
    choice. Span extraction: the context in overlapping windows.

    Args:
        data: the task's data.
        split: a key of ``data.splits``.
        tokenizer: a fast tokenizer.
        max_length: tokens per encoding at most, None for the task's, or for the tokenizer's own
            limit where that is lower.
        cache: folder of encoded splits; a damaged or unwritable file there costs only time.
        words: the tokenizer's fingerprint, where it is known: making it reads all of its words.

    Raises:
        RequestError: no such split, a slow tokenizer, one without padding token, or a length
            beyond the tokenizer's limit, or a ``pair`` that it cannot make.
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
    limit = token_limit(tokenizer)
    if max_length is not None and max_length > limit:
        raise RequestError(
            f"max_length={max_length} is more than the {limit} tokens that the tokenizer "
            f"{tokenizer.name_or_path!r} allows."
        )
    length = max_length or min(data.spec.max_length, limit)
    spec = data.spec
    if spec.pair and len(data.splits[split].texts) > 1:
        tokenizer, words = paired(tokenizer, spec.pair), None  # its format is another one
    settings = {
        "version": ENCODING_VERSION,
        "data": data.fingerprints[split],
        "tokenizer": words or tokenizer_fingerprint(tokenizer),
        "max_length": length,
        **tokenizer_options(tokenizer),
    }
    # What came later is named only where it is used, so that older encodings stay valid.
    if spec.choices > 1:
        settings["choices"] = spec.choices
    if spec.truncate != "longest":
        settings["truncate"] = spec.truncate
    rows = data.splits[split]
    pairs = len(rows.texts) > 1
    left = spec.truncate == "first" and pairs and tokenizer.truncation_side == "left"
    if left:  # it was once cut on the right all the same
        settings["truncate"] = "first, on the left"
    windows = KINDS.get(spec.kind).windows
    if windows:
        settings["windows"] = True
    fingerprint = sha256_json(settings)
    path = cache / fingerprint[:2] / f"{fingerprint}.safetensors" if cache else None
    arrays = read_arrays(path)
    if arrays is None:
        try:
            if windows:
                arrays = tokenise_windows(rows, tokenizer, length)
            elif left:
                arrays = tokenise_left(rows, tokenizer, length, spec.choices)
            elif spec.truncate == "first" and pairs:
                arrays = tokenise_shared(rows, tokenizer, length, spec.choices)
            else:
                arrays = tokenise(rows, tokenizer, length, spec.choices)
        except RequestError as error:
            raise RequestError(f"Task {spec.id!r}, split {split!r}: {error}") from error
        if path is not None:
            write_arrays(path, arrays)
    lengths = np.diff(arrays["start"])
    shared = None
    if "lead" in arrays:
        names = ("shared.ids", "shared.types", "shared.start", "lead", "cut")
        shared = SharedFirsts(*(arrays.get(name) for name in names))  # type: ignore[arg-type]
        lengths = lengths + arrays["cut"]
    labels, table, groups = rows.labels, dict(rows.table), rows.groups
    if windows:
        labels = arrays["labels"]
        table |= {"span": rows.labels, "context": rows.texts[1]}
        table |= {name: arrays[name] for name in ("example", "begin", "end", "start")}
        groups = groups and [groups[example] for example in arrays["example"]]
    return Encoded(
        name=split,
        labels=labels,
        row=np.arange(len(labels), dtype=np.int64),
        choices=spec.choices,
        ids=arrays["ids"],
        types=arrays.get("types"),
        start=arrays["start"],
        lengths=np.maximum(lengths.reshape(-1, spec.choices).max(axis=1), 1),
        truncated=int(arrays["truncated"][0]),
        table=table,
        pad_id=int(tokenizer.pad_token_id),
        fingerprint=fingerprint,
        shared=shared,
        groups=groups,
    )
