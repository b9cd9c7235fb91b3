"""What a run is compared with: simple answers to the same task from the same rows.

=============  =====================================================================================
``majority``   one answer for all: the most frequent class or choice, the mean of a regression; of
               label sets the most frequent set or every label that most rows have, whichever scores
               better on the training rows
``tfidf``      a linear model on TF-IDF of words and pairs of words, each text with its own
``probe``      a linear model on the frozen base's mean vectors, standardised (score ``probe``)
=============  =====================================================================================

The linear model is a logistic regression, of a regression a ridge; a choice or candidate is scored
as right or not, and decoded as the network's logits are. They fit the rows that the run trains on
(of more than :data:`TEXT_ROWS` and :data:`FEATURE_ROWS` so many drawn ones, which the record says),
and answer dev and every test split, scored with the task's metrics. Computed once per data and base
and kept in the user's cache. What cannot be had is named with its reason; nothing here ends a run.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.engine.evaluation import EvalSet, Evaluation
from mtl.errors import MtlError
from mtl.files import finite, sha256_json, write_json
from mtl.runs.simple_models import NoAnswer, constant_answer, linear_answers, text_features
from mtl.tasks import KINDS, decode, score

if TYPE_CHECKING:
    from mtl.backbone import Backbone
    from mtl.data import TaskData
    from mtl.engine import Device

VERSION = 2
"""Raised when the same rows would give other baselines."""
FEATURE_ROWS, TEXT_ROWS = 5000, 20000
"""Rows of a split at most whose vectors are made; training rows that TF-IDF learns from."""
NAMES = ("majority", "tfidf", "probe")
_LOG = logging.getLogger("mtl.baselines")

Answers = Callable[[str, np.ndarray], np.ndarray]
"""Split and rows → one prediction per row, or logits (n,C)."""


@dataclass(frozen=True)
class Rows:
    """One task's rows as a run sees them.

    Attributes:
        data: its texts.
        sets: split → its encoded rows.
        cache: folder of the user's cache.
    """

    data: TaskData
    sets: Mapping[str, EvalSet]
    backbone: Backbone
    device: Device
    cache: Path

    def labels(self, split: str) -> np.ndarray:
        return np.asarray(self.sets[split].encoded.labels)


def baselines_of(rows: Rows) -> dict[str, Any]:
    """``train`` (rows), ``seconds``, ``scores`` by name, ``missing``: name → why, as JSON.

    ``scores[name]`` is ``{"train", "says", "splits"}``: the rows that it learned from, what a
    constant answer is, and split → metric → the summary of a manifest.
    """
    path = _place(rows)
    try:
        found = json.loads(path.read_bytes())
        if isinstance(found, dict) and {"train", "scores", "missing"} <= found.keys():
            return found
    except (OSError, ValueError):
        pass  # not computed, or not readable: it is made again
    began = time.monotonic()
    scores: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for name in NAMES:
        try:
            with _one_thread():
                scores[name] = _MAKERS[name](rows)
        except NoAnswer as reason:
            missing[name] = str(reason)
        except Exception as error:  # a baseline must not cost the run that it stands beside
            _LOG.warning("no baseline %s of %s: %r", name, rows.data.spec.id, error)
            missing[name] = f"it failed: {type(error).__name__}: {error}"[:300]
    seconds = round(time.monotonic() - began, 3)
    made = finite(
        {
            "train": len(rows.labels("train")),
            "seconds": seconds,
            "scores": scores,
            "missing": missing,
        }
    )
    try:
        write_json(path, made)
    except MtlError as error:
        _LOG.info("baselines are not cached: %s", error)
    return made


def _place(rows: Rows) -> Path:
    base = rows.backbone.base
    mark = sha256_json(
        {
            "version": VERSION,
            "rows": [FEATURE_ROWS, TEXT_ROWS],
            "task": rows.data.spec.portable(),
            "data": dict(rows.data.fingerprints),
            "base": base.fingerprint,
            "tokenizer": base.tokenizer,
            "tokens": rows.backbone.tokens,
            **_held(rows.backbone),
        }
    )
    return rows.cache / "baselines" / mark[:2] / f"{mark}.json"


def _held(backbone: Backbone) -> dict[str, str]:
    """How the base is held, where it is not as it was loaded: vectors of it are others."""
    return {} if backbone.held_in == "fp32" else {"base_precision": backbone.held_in}


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for BLAS: small products are slower in several, far slower beside other work."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        yield


def _majority(rows: Rows) -> dict[str, Any]:
    spec, labels = rows.data.spec, rows.labels("train")
    split = rows.sets["train"]

    def quality(answer: np.ndarray) -> float:
        said = np.broadcast_to(answer, labels.shape).copy()
        return score(spec, said, labels, split.encoded.table)[spec.headline]

    answer, says = constant_answer(spec, labels, quality)
    shape = answer.shape
    made = {
        name: _scored(rows, name, None, np.broadcast_to(answer, (len(s.encoded), *shape)).copy())
        for name, s in rows.sets.items()
        if name != "train"
    }
    return {"train": len(labels), "says": says, "splits": made}


def _tfidf(rows: Rows) -> dict[str, Any]:
    chosen = few_rows(rows.sets["train"], TEXT_ROWS)
    texts = {name: split.texts for name, split in rows.data.splits.items()}
    fitted = text_features(texts["train"], chosen, rows.data.spec.choices)
    learned = linear_answers(
        rows.data.spec, fitted(texts["train"], chosen), rows.labels("train")[chosen], words=True
    )
    made = {
        name: _scored(rows, name, None, _decoded(split, None, learned(fitted(texts[name], None))))
        for name, split in rows.sets.items()
        if name != "train"
    }
    return {"train": len(chosen), "says": None, "splits": made}


def _probe(rows: Rows) -> dict[str, Any]:
    chosen = few_rows(rows.sets["train"], FEATURE_ROWS)
    encoder = rows.backbone.encoder()

    def vectors(name: str, wanted: np.ndarray) -> np.ndarray:
        return mean_vectors(rows, encoder, name, wanted)

    learned = linear_answers(
        rows.data.spec, vectors("train", chosen), rows.labels("train")[chosen], words=False
    )
    made = {}
    for name, split in rows.sets.items():
        if name != "train":
            wanted = few_rows(split, FEATURE_ROWS)
            answers = _decoded(split, wanted, learned(vectors(name, wanted)))
            made[name] = _scored(rows, name, wanted, answers)
    return {"train": len(chosen), "says": None, "splits": made}


_MAKERS = {"majority": _majority, "tfidf": _tfidf, "probe": _probe}


def mean_vectors(rows: Rows, encoder: Any, name: str, wanted: np.ndarray) -> np.ndarray:
    """(n·choices, D) mean vectors of some rows of a split in the plain base, kept in the cache."""
    from mtl.engine.vectors import kept, token_vectors

    base, split = rows.backbone.base, rows.sets[name]
    key = {
        "what": "mean of a split",
        "version": VERSION,
        "rows": rows.data.fingerprints[name],
        "limit": FEATURE_ROWS,
        "encoded": split.encoded.fingerprint,
        "base": base.fingerprint,
        **_held(rows.backbone),
    }

    def make() -> dict[str, Any]:
        # in fp32 whatever the run computes in: what is reported beside results, of any machine
        exact = replace(rows.device, precision="fp32")
        found = token_vectors(encoder, split.encoded, exact, wanted)
        return {"mean": found["mean"]}

    return np.asarray(kept(rows.cache / "features", key, make)["mean"])


def few_rows(split: EvalSet, limit: int) -> np.ndarray:
    """All rows of a split, or ``limit`` drawn ones in their order; of queries, whole ones."""
    count = len(split.encoded)
    if count <= limit:
        return np.arange(count)
    rng = np.random.default_rng(0)
    group = split.encoded.table.get("group")
    if group is None:
        return np.sort(rng.permutation(count)[:limit])
    names, place, sizes = np.unique(group, return_inverse=True, return_counts=True)
    order = rng.permutation(len(names))
    taken = order[: max(1, int(np.searchsorted(np.cumsum(sizes[order]), limit, side="right")))]
    return np.flatnonzero(np.isin(place, taken))


def _taken(table: Mapping[str, Any], rows: np.ndarray | None) -> Mapping[str, Any]:
    if rows is None:
        return table
    return {
        name: column[rows] if isinstance(column, np.ndarray) else [column[r] for r in rows]
        for name, column in table.items()
    }


def _decoded(split: EvalSet, rows: np.ndarray | None, logits: np.ndarray) -> np.ndarray:
    return decode(split.spec, logits, _taken(split.encoded.table, rows))


def _scored(
    rows: Rows, name: str, wanted: np.ndarray | None, prediction: np.ndarray
) -> dict[str, Any]:
    """Metric → summary of predictions for some rows of a split (None: all)."""
    split = rows.sets[name]
    table = _taken(split.encoded.table, wanted)
    labels = split.encoded.labels if wanted is None else split.encoded.labels[wanted]
    labels = KINDS.get(split.spec.kind).targets(labels, table)
    found = score(split.spec, prediction, labels, table)
    nothing = np.zeros(0, np.float32)
    row = np.arange(len(labels))
    return Evaluation(
        float("nan"), found, row, labels, prediction, nothing, nothing, split.spec, table
    ).summary()
