"""What a score is, what it may look at, and when it must not answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from mtl.registry import Registry

Array = NDArray[np.float64]


class Unscorable(Exception):  # noqa: N818 - an answer, not a defect
    """A candidate that a score cannot judge; the message says why. Never turned into a number."""


@dataclass(frozen=True)
class TaskView:
    """What is known of a task from at most 2,000 of its training rows and the plain base.

    Attributes:
        task: id.
        kind: ``classification``, ``regression`` or ``multilabel``.
        texts: one per row, the parts of a pair joined.
        labels: (n,) classes or values, (n,C) for multilabel.
        first: (n,D) vectors of the first token in the base's last layer.
        mean: (n,D) mean over the real tokens of the base's last layer.
        fisher: layer → (D,) mean squared gradient at the first token (TaskEmb).
        maps: site → (U (D,R), V (R,D)) of the task's own adapter; its linear part is U V.
    """

    task: str
    kind: str
    texts: list[str] | None = None
    labels: NDArray[np.generic] | None = None
    first: Array | None = None
    mean: Array | None = None
    fisher: Mapping[str, Array] | None = None
    maps: Mapping[str, tuple[Array, Array]] | None = None


@dataclass(frozen=True)
class Candidate:
    """A source that is looked at for a target.

    Attributes:
        features: (n,D) first-token vectors of the target's rows with the source's adapter active.
        esm: (D+1,D), the source's embedding-space map; the last row is its bias.
        missing: what could not be had → why.
    """

    target: TaskView
    source: TaskView
    features: Array | None = None
    esm: Array | None = None
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Score:
    """A transferability score; the higher, the more the source should help.

    Attributes:
        name: what ``--scores`` takes.
        summary, citation: for tables and docs.
        needs: what it reads, as ``target.<field>``, ``source.<field>``, ``features`` or ``esm``.
        kinds: kinds of target that it is defined for.
        function: candidate → value.
        features: whether it judges features of the target's rows; the plain base's features then
            give a value to compare with (:func:`baseline`).
        claims: whether it claims to tell related tasks from unrelated ones; False for baselines
            that are blind to what a task asks (a test holds the others to it on the demo suite).
    """

    name: str
    summary: str
    citation: str
    needs: tuple[str, ...]
    function: Callable[[Candidate], float]
    kinds: tuple[str, ...] = ("classification", "regression", "multilabel")
    features: bool = False
    claims: bool = True


SCORES: Registry[Score] = Registry("score", Score, "mtl.scores")
for _name in (
    "tfidf",
    "textemb",
    "logme",
    "probe",
    "weights",
    "esm",
    "hscore",
    "knn",
    "taskemb",
):
    SCORES.add(_name, f"mtl.graph.scores.{_name}:SCORE")


def compute(score: Score, candidate: Candidate) -> float:
    """The value of ``score`` for ``candidate``.

    Raises:
        Unscorable: another kind of task, something missing, features that are not finite or do not
            fit the rows, labels of one class only, or a value that is not finite.
    """
    target = candidate.target
    if score.kinds and target.kind not in score.kinds:
        raise Unscorable(f"not defined for {target.kind} targets")
    for need in score.needs:
        _check(candidate, need)
    if "target.labels" in score.needs:
        _check_labels(target)
    with np.errstate(all="ignore"):  # what goes wrong shows in the value
        value = float(score.function(candidate))
    if not np.isfinite(value):
        raise Unscorable(f"its value is {value}")
    return value


def baseline(score: Score, target: TaskView) -> float | None:
    """The score of the plain base's own features; None where the score judges no features.

    Raises:
        Unscorable: as :func:`compute`.
    """
    if not score.features:
        return None
    width = 0 if target.first is None else target.first.shape[1]
    identity = np.concatenate([np.eye(width), np.zeros((1, width))])
    return compute(score, Candidate(target, target, target.first, identity))


def first_rows(target: TaskView, rows: NDArray[np.int64]) -> TaskView:
    """The view of some rows only (arrays over rows; the rest is shared)."""
    return replace(
        target,
        texts=None if target.texts is None else [target.texts[row] for row in rows],
        labels=None if target.labels is None else target.labels[rows],
        first=None if target.first is None else target.first[rows],
        mean=None if target.mean is None else target.mean[rows],
    )


def _check(candidate: Candidate, need: str) -> None:
    owner, dot, name = need.partition(".")
    holder: object = getattr(candidate, owner) if dot else candidate
    value = getattr(holder, name or owner)
    if value is None:
        raise Unscorable(candidate.missing.get(need) or f"{need} is missing")
    if isinstance(value, list) and not value:
        raise Unscorable(f"{need} holds no rows")
    if isinstance(value, Mapping):
        arrays = [
            a for item in value.values() for a in (item if isinstance(item, tuple) else (item,))
        ]
        if not arrays:
            raise Unscorable(f"{need} is empty")
    elif isinstance(value, np.ndarray):
        arrays = [value]
    else:
        return
    for array in arrays:
        bad = int(np.size(array) - np.isfinite(array).sum()) if array.dtype.kind == "f" else 0
        if bad:
            raise Unscorable(f"{need} holds {bad} values that are not finite")
    labels = candidate.target.labels
    if (
        need in {"features", "target.first"}
        and labels is not None
        and len(labels) != len(arrays[0])
    ):
        raise Unscorable(f"{need} has {len(arrays[0])} rows, the labels {len(labels)}")


def _check_labels(target: TaskView) -> None:
    labels = target.labels
    assert labels is not None
    if len(labels) < 2:
        raise Unscorable(f"the target has {len(labels)} rows")
    varies = (labels != labels[:1]).any(axis=0)
    if not np.any(varies):
        what = "class" if target.kind == "classification" else "value"
        raise Unscorable(f"all {len(labels)} rows of the target have one {what}")
