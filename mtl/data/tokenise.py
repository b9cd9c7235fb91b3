"""From texts to flat arrays of token ids: singles and pairs, choices, shared firsts, windows.

Every function takes the texts of a split in batches, so that memory holds the ids and never the
tokenizer's objects for all rows, and shows a progress bar where that takes longer than a second.

Arrays: ``ids`` (int32) and, where the encoder has them, ``types`` (int8), flat over encodings;
``start`` (E+1,) where each begins; ``truncated`` (1,) how many lost tokens.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.errors import RequestError
from mtl.tasks.spans import token_spans

if TYPE_CHECKING:
    from mtl.data.task_data import Split

Arrays = dict[str, np.ndarray]
_STEP = 4096
"""Rows that the tokenizer is given at once."""


def has_types(tokenizer: Any) -> bool:
    """Whether the encoder reads token types."""
    return "token_type_ids" in tokenizer.model_input_names


def tokenizer_options(tokenizer: Any) -> dict[str, Any]:
    """What decides a fast tokenizer's answers beside its state: settings around it, as JSON."""
    return {
        "pad_token_id": tokenizer.pad_token_id,
        "split_special_tokens": bool(getattr(tokenizer, "split_special_tokens", False)),
        "token_type_ids": has_types(tokenizer),
        "truncation_side": str(tokenizer.truncation_side),
    }


class _Flat:
    """Ragged integer rows, appended batch by batch and joined once."""

    def __init__(self, dtype: Any) -> None:
        self._dtype = dtype
        self._parts: list[np.ndarray] = []
        self._sizes: list[np.ndarray] = [np.zeros(1, dtype=np.int64)]

    def add(self, rows: Sequence[Sequence[int]]) -> None:
        sizes = np.fromiter(map(len, rows), np.int64, len(rows))
        self._sizes.append(sizes)
        self._parts.append(np.fromiter(chain.from_iterable(rows), self._dtype, int(sizes.sum())))

    def values(self) -> np.ndarray:
        return np.concatenate(self._parts) if self._parts else np.zeros(0, self._dtype)

    def start(self) -> np.ndarray:
        return np.cumsum(np.concatenate(self._sizes))


def _batches(total: int, what: str) -> Iterator[slice]:
    from tqdm import tqdm

    # None: no bar where standard error is no terminal.
    hidden = True if os.environ.get("MTL_QUIET") == "1" else None
    with tqdm(total=total, desc=what, unit="row", leave=False, disable=hidden, delay=1) as bar:
        for begin in range(0, total, _STEP):
            end = min(begin + _STEP, total)
            yield slice(begin, end)
            bar.update(end - begin)


def tokenise(rows: Split, tokenizer: Any, max_length: int, choices: int) -> Arrays:
    """Singles, pairs, or the context with each of several choices; the longest part cut first."""
    types = has_types(tokenizer)
    ids, kinds = _Flat(np.int32), _Flat(np.int8)
    truncated = 0
    for batch in _batches(len(rows), "tokenise"):
        parts = _pairs(rows, batch) if choices > 1 else [texts[batch] for texts in rows.texts]
        found = tokenizer(
            *parts,
            truncation="longest_first" if len(parts) == 2 else True,
            max_length=max_length,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=types,
            verbose=False,
        )
        ids.add(found["input_ids"])
        if types:
            kinds.add(found["token_type_ids"])
        truncated += sum(bool(item.overflowing) for item in found.encodings)
    return _arrays(ids, kinds if types else None, truncated)


def _pairs(rows: Split, batch: slice) -> list[list[str]]:
    """First and second texts, each context as often as it has choices."""
    context, *choices = (texts[batch] for texts in rows.texts)
    return [
        [text for text in context for _ in choices],
        [text for several in zip(*choices, strict=True) for text in several],
    ]


def _arrays(ids: _Flat, types: _Flat | None, truncated: int) -> Arrays:
    arrays = {
        "ids": ids.values(),
        "start": ids.start(),
        "truncated": np.asarray([truncated], dtype=np.int64),
    }
    if types is not None:
        arrays["types"] = types.values()
    return arrays


@dataclass(frozen=True)
class _Joints:
    """The special tokens of a pair: ``lead A middle B tail``, as (ids, types) each."""

    lead: tuple[list[int], list[int]]
    middle: tuple[list[int], list[int]]
    tail: tuple[list[int], list[int]]
    types: tuple[int, int]

    @property
    def size(self) -> int:
        return sum(len(part[0]) for part in (self.lead, self.middle, self.tail))

    def of(self, texts: Sequence[int | None]) -> list[int]:
        """Token types of a pair, from the text (0, 1, or None) that each token is of."""
        first, second = ([kind] * texts.count(text) for text, kind in enumerate(self.types))
        return [*self.lead[1], *first, *self.middle[1], *second, *self.tail[1]]


def _joints(tokenizer: Any) -> _Joints:
    found = tokenizer("a", "a", return_token_type_ids=True)
    place = found.sequence_ids(0)
    first = [index for index, text in enumerate(place) if text == 0]
    second = [index for index, text in enumerate(place) if text == 1]
    if not first or not second or first[-1] > second[0]:
        raise RequestError(
            f"The tokenizer {tokenizer.name_or_path!r} does not join pairs as first, second; "
            "'truncate: first' and spans cannot be used with it."
        )
    ids, types = found["input_ids"], found["token_type_ids"]

    def part(low: int, high: int) -> tuple[list[int], list[int]]:
        return ids[low:high], types[low:high]

    return _Joints(
        part(0, first[0]),
        part(first[-1] + 1, second[0]),
        part(second[-1] + 1, len(ids)),
        (types[first[0]], types[second[0]]),
    )


def _plain(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    return tokenizer(
        texts,
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )["input_ids"]


def tokenise_shared(rows: Split, tokenizer: Any, max_length: int, choices: int) -> Arrays:
    """Pairs of which only the first text is cut, each distinct first text tokenised and held once.

    Encoding e is the first ``cut[e]`` tokens of lead ``lead[e]`` and then its own tokens:

    - ``shared.ids``, ``shared.types``, ``shared.start``: the leads, ``<s> A``, uncut up to
      ``max_length``;
    - ``ids``, ``types``, ``start``: per encoding, ``</s></s> B </s>``.

    Raises:
        RequestError: a second text alone leaves no room for a token of the first.
    """
    joints = _joints(tokenizer)
    room = max_length - joints.size
    places: dict[str, int] = {}
    lead = np.fromiter(
        (places.setdefault(text, len(places)) for text in rows.texts[0]), np.int64, len(rows)
    )
    lead = np.repeat(lead, choices)
    firsts = list(places)
    shared, sizes = _Flat(np.int32), []
    for batch in _batches(len(firsts), "tokenise first texts"):
        found = _plain(tokenizer, firsts[batch])
        sizes += [len(ids) for ids in found]
        shared.add([joints.lead[0] + ids[:room] for ids in found])
    whole = np.asarray(sizes, dtype=np.int64)
    own = _Flat(np.int32)
    for batch in _batches(len(rows), "tokenise"):
        seconds = _pairs(rows, batch)[1] if choices > 1 else rows.texts[1][batch]
        found = _plain(tokenizer, seconds)
        own.add([[*joints.middle[0], *ids, *joints.tail[0]] for ids in found])
    start = own.start()
    specials = len(joints.middle[0]) + len(joints.tail[0])
    free = room - (np.diff(start) - specials)
    if len(free) and free.min() < 1:
        row = int(free.argmin())
        raise _no_room(row // choices, room - int(free[row]), max_length, joints)
    kept = np.minimum(whole[lead], free)
    arrays = {
        "ids": own.values(),
        "start": start,
        "truncated": np.asarray([int((kept < whole[lead]).sum())], dtype=np.int64),
        "lead": lead.astype(np.int32),
        "cut": (kept + len(joints.lead[0])).astype(np.int32),
        "shared.ids": shared.values(),
        "shared.start": shared.start(),
    }
    if has_types(tokenizer):
        arrays["types"] = _own_types(joints, start)
        arrays["shared.types"] = _lead_types(joints, arrays["shared.start"])
    return arrays


def tokenise_left(rows: Split, tokenizer: Any, max_length: int, choices: int) -> Arrays:
    """Pairs of which only the first text is cut, where it begins (``truncation_side`` left).

    Raises:
        RequestError: a second text alone leaves no room for a token of the first.
    """
    joints, types = _joints(tokenizer), has_types(tokenizer)
    ids, kinds = _Flat(np.int32), _Flat(np.int8)
    truncated = 0
    for batch in _batches(len(rows), "tokenise"):
        parts = _pairs(rows, batch) if choices > 1 else [texts[batch] for texts in rows.texts]
        firsts, seconds = (_plain(tokenizer, texts) for texts in parts)
        for place, (first, second) in enumerate(zip(firsts, seconds, strict=True)):
            room = max_length - joints.size - len(second)
            if room < 1:
                raise _no_room(batch.start + place // choices, len(second), max_length, joints)
            kept = first[-room:]
            lead, middle, tail = joints.lead, joints.middle, joints.tail
            ids.add([[*lead[0], *kept, *middle[0], *second, *tail[0]]])
            one, other = [joints.types[0]] * len(kept), [joints.types[1]] * len(second)
            kinds.add([[*lead[1], *one, *middle[1], *other, *tail[1]]])
            truncated += len(kept) < len(first)
    return _arrays(ids, kinds if types else None, truncated)


def _no_room(row: int, second: int, max_length: int, joints: _Joints) -> RequestError:
    return RequestError(
        f"row {row}: its second text has {second} tokens, which leaves no room for the first in "
        f"{max_length} with {joints.size} special tokens. Raise max_length, shorten the text, or "
        "use 'truncate: longest'."
    )


def _own_types(joints: _Joints, start: np.ndarray) -> np.ndarray:
    types = np.full(int(start[-1]), joints.types[1], dtype=np.int8)
    for offset, value in enumerate(joints.middle[1]):
        types[start[:-1] + offset] = value
    for offset, value in enumerate(reversed(joints.tail[1])):
        types[start[1:] - 1 - offset] = value
    return types


def _lead_types(joints: _Joints, start: np.ndarray) -> np.ndarray:
    types = np.full(int(start[-1]), joints.types[0], dtype=np.int8)
    for offset, value in enumerate(joints.lead[1]):
        types[start[:-1] + offset] = value
    return types


def tokenise_windows(rows: Split, tokenizer: Any, max_length: int) -> Arrays:
    """Question and context, the context in windows that overlap by a third of ``max_length``.

    Beside the usual arrays, with an encoding per window:

    - ``example`` (W,): the row that a window belongs to, ascending;
    - ``begin``, ``end``: characters of every token in the context, flat as ``ids``, −1 elsewhere;
    - ``labels`` (W,2): the answer in tokens, see :func:`mtl.tasks.spans.token_spans`.

    Raises:
        RequestError: a question that leaves no room for a window.
    """
    overlap = max_length // 3
    joints = _joints(tokenizer)
    room = max_length - joints.size - overlap
    types = has_types(tokenizer)
    ids, kinds = _Flat(np.int32), _Flat(np.int8)
    begin, end = _Flat(np.int32), _Flat(np.int32)
    example: list[np.ndarray] = []
    for batch in _batches(len(rows), "tokenise"):
        questions, contexts = (texts[batch] for texts in rows.texts)
        for row, found in enumerate(_plain(tokenizer, questions)):
            if len(found) >= room:
                raise RequestError(
                    f"row {batch.start + row}: the question has {len(found)} tokens; windows of "
                    f"{max_length} tokens that overlap by {overlap} hold fewer than {room} of it. "
                    "Raise max_length or shorten the question."
                )
        found = tokenizer(
            questions,
            contexts,
            truncation="only_second",
            max_length=max_length,
            stride=overlap,
            padding=False,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,
        )
        ids.add(found["input_ids"])
        if types:
            # Not the tokenizer's own: of windows behind the first some give the context another.
            kinds.add([joints.of(item.sequence_ids) for item in found.encodings])
        inside = [[text == 1 for text in item.sequence_ids] for item in found.encodings]
        offsets = found["offset_mapping"]
        for flat, side in ((begin, 0), (end, 1)):
            flat.add(
                [
                    [pair[side] if here else -1 for pair, here in zip(*both, strict=True)]
                    for both in zip(offsets, inside, strict=True)
                ]
            )
        example.append(np.asarray(found["overflow_to_sample_mapping"], np.int64) + batch.start)
    of = np.concatenate(example)
    windows = np.bincount(of, minlength=len(rows))
    arrays = _arrays(ids, kinds if types else None, int((windows > 1).sum()))
    arrays |= {"example": of, "begin": begin.values(), "end": end.values()}
    spans = token_spans(arrays["begin"], arrays["end"], arrays["start"], rows.labels[of])
    return arrays | {"labels": spans}
