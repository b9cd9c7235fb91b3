"""What an entry gets wrong: classes, confusions, calibration, its surest mistakes, and what a
composition mends or breaks beside the own adapter.

All of it is computed from the answers that an entry stores (:mod:`mtl.zoo.predictions`); texts are
shown where somebody hands in those of the split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.errors import RequestError, ZooError
from mtl.files import finite
from mtl.report.error_parts import (
    Calibration,
    ClassRow,
    Confusion,
    Pair,
    Residuals,
    calibrate,
    class_rows,
    confuse,
    most_confused,
    residuals,
    softmax,
)
from mtl.zoo.entry import drawn
from mtl.zoo.names import predictions_file, predictions_of, show
from mtl.zoo.predictions import Predictions, read_predictions

if TYPE_CHECKING:
    from mtl.zoo import Entry, Zoo

TOP = 10
CLASSED = ("classification", "multiple_choice", "candidates")
"""Kinds of which an answer is one class."""
CLOSER = "sign test"
MCNEMAR = "exact McNemar test"
_REMARKS = {
    "multiple_choice": "the classes are the places of the choices",
    "candidates": "a row is a candidate, one of each group is chosen; its scores decide among the "
    "candidates, so they are not calibrated by row",
    "span_extraction": "a row is right where begin and end are the stored label's; a question may "
    "have further right texts, which the metrics of the entry count",
    "multilabel": "a row is right where all of its labels are; calibration is over all decisions",
}


@dataclass(frozen=True)
class Mistake:
    """One row: its number in the split, what it is, what was answered, and how sure.

    ``confidence`` is the probability of the answer (of a multi-label row that of its surest wrong
    decision, of a span its score, of a regression None); ``difference`` is answer − label of a
    regression; ``texts`` are empty where the data were not at hand.
    """

    row: int
    label: Any
    predicted: Any
    confidence: float | None = None
    difference: float | None = None
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Compared:
    """Answers beside those of another entry on the same rows.

    Attributes:
        ref: the other entry.
        mended, broken: rows that are right (of a regression: closer) here alone, and there alone.
        same: rows that are right in both, and wrong in both (of a regression: equally far).
        p: of ``test`` two-sided, exact, over the rows that differ; None where none does.
        mends, breaks: the first of them, the surest mistakes of either side first.
    """

    ref: str
    mended: int
    broken: int
    same: tuple[int, int]
    p: float | None
    test: str
    mends: tuple[Mistake, ...]
    breaks: tuple[Mistake, ...]


@dataclass(frozen=True)
class ErrorReport:
    """What :func:`error_report` found; parts that a kind of task has not are None or empty.

    Attributes:
        n, wrong: rows, and those answered wrong; ``wrong`` is None of a regression.
        classes: of every class (label), with averages in ``macro``.
        confusion: rows are labels, columns answers.
        pairs: the most confused, most first.
        calibration: of softmax (multi-label: sigmoid) of the stored scores.
        mistakes: the surest first, of a regression the farthest.
        notes: remarks, among them why there are no texts, or nothing to compare with.
    """

    ref: str
    digest: str
    task: str
    kind: str
    method: str
    seed: int
    split: str
    n: int
    wrong: int | None
    classes: tuple[ClassRow, ...] = ()
    macro: Mapping[str, float | None] = field(default_factory=dict)
    confusion: Confusion | None = None
    pairs: tuple[Pair, ...] = ()
    calibration: Calibration | None = None
    residuals: Residuals | None = None
    mistakes: tuple[Mistake, ...] = ()
    compared: Compared | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = finite(asdict(self))
        return found


@dataclass(frozen=True)
class Answered:
    """The stored answers of an entry to one task on a split."""

    entry: Entry
    task: str
    kind: str
    names: tuple[str, ...]
    split: str
    given: Predictions

    @property
    def right(self) -> np.ndarray:
        """(n,) whether each row is answered right (see ``_REMARKS``)."""
        same = self.given.label == self.given.prediction
        found: np.ndarray = same.reshape(len(same), -1).all(axis=1)
        return found

    def confidence(self) -> np.ndarray:
        """(n,) how sure each answer is; NaN where scores say nothing."""
        scores, answer = self.given.scores.astype(np.float64), self.given.prediction
        if self.kind in CLASSED and scores.shape[1] > int(answer.max(initial=0)):
            found: np.ndarray = softmax(scores)[np.arange(len(answer)), answer]
        elif self.kind == "multilabel":  # of the surest decision that is wrong, else of the surest
            sure = 1 / (1 + np.exp(-np.abs(scores)))
            wrong = answer != self.given.label
            found = np.where(wrong, sure, np.where(wrong.any(axis=1, keepdims=True), 0, sure)).max(
                axis=1, initial=0.0
            )
        elif self.kind == "span_extraction":
            found = scores[:, 0]
        else:
            found = np.full(len(answer), np.nan)
        return found

    def words(self, value: Any, texts: Sequence[str]) -> Any:
        """A label or an answer as people read it."""
        if self.kind in CLASSED:
            return self.names[int(value)]
        if self.kind == "multilabel":
            return [name for name, on in zip(self.names, value, strict=True) if on]
        if self.kind == "span_extraction":
            begin, end = map(int, value)
            return texts[1][begin:end] if len(texts) > 1 else [begin, end]
        return float(value)


def answered(entry: Entry, split: str = "test", task: str | None = None) -> Answered:
    """The answers of ``entry`` on a split.

    Args:
        task: id or name of one of the tasks of a joint entry.

    Raises:
        RequestError: it stores none on this split, or is of several tasks and none is named.
        ZooError: they are damaged, or of classes that the task has not.
    """
    section, part = _section(entry, task)
    file = predictions_file(split, part)
    if file not in entry.files:
        there = [predictions_of(name) for name in entry.files]
        splits = sorted({found[0] for found in there if found is not None and found[1] == part})
        raise RequestError(
            f"{entry.ref} stores no answers on the split {split!r}; those it stores are of "
            f"{', '.join(splits) or 'none'} (--split)."
        )
    given = read_predictions(entry.folder, file)
    kind = str(section.get("kind"))
    spec = section.get("spec")
    told = section.get("labels") or (spec.get("labels") if isinstance(spec, Mapping) else None)
    names = [str(name) for name in told] if isinstance(told, list) else []
    if kind in (*CLASSED, "multilabel"):
        width = given.scores.shape[1]
        names += [str(place) for place in range(len(names), width)]
        _check_classes(entry, file, kind, given, len(names))
    return Answered(entry, str(section["id"]), kind, tuple(names), split, given)


def _check_classes(entry: Entry, file: str, kind: str, given: Predictions, count: int) -> None:
    """Answers of a stranger's entry have to be those of its task before anything counts them."""
    for values in (given.label, given.prediction):
        if kind == "multilabel":
            good = values.ndim == 2 and values.shape[1] == count == given.scores.shape[1]
        else:
            good = values.ndim == 1 and values.dtype.kind == "i"
            good = good and bool(((values >= 0) & (values < count)).all())
        if not good:
            raise ZooError(
                f"{entry.ref}: {file} holds answers that are none of the {count} classes of its "
                "task."
            )


def _section(entry: Entry, task: str | None) -> tuple[Mapping[str, Any], str]:
    manifest = entry.manifest
    if manifest.kind != "joint":
        return manifest.task, ""
    from mtl.zoo.schema import joint_sections

    listed = joint_sections(manifest.task, manifest.data, entry.ref)
    for name, (section, _) in listed.items():
        if task in (name, name.rpartition("/")[2]):
            return section, name
    raise RequestError(
        f"{entry.ref} answers {len(listed)} tasks; say which with --target: {', '.join(listed)}."
    )


def own_adapter(entry: Entry, zoo: Zoo) -> Entry | str:
    """The own adapter that a composition is judged by, else what is missing, in words.

    Of the same task, base, data, seed and a method of its sources: its source, or the newest."""
    manifest = entry.manifest
    methods = {parent["method"] for parent in manifest.parents}
    digests = {parent["digest"] for parent in manifest.parents}
    fitting = [
        found
        for found in zoo.entries(kind="adapter", task=manifest.task["id"], seed=manifest.seed)
        if found.manifest.base["fingerprint"] == manifest.base["fingerprint"]
        and found.manifest.data["fingerprint"] == manifest.data["fingerprint"]
        and found.manifest.method in methods
    ]
    if fitting:
        given = [f for f in fitting if f.digest in digests]
        return max(given or drawn(fitting), key=lambda found: found.manifest.created)
    return (
        f"nothing to compare with: the zoo holds no own adapter of {manifest.task['id']} "
        f"({' or '.join(sorted(methods))}) with seed {manifest.seed} on these data"
    )


def error_report(
    entry: Entry,
    split: str = "test",
    *,
    task: str | None = None,
    texts: Sequence[Sequence[str]] | None = None,
    against: Entry | None = None,
    top: int = TOP,
    notes: Sequence[str] = (),
) -> ErrorReport:
    """Look at the stored answers of an entry.

    Args:
        task: which of the tasks of a joint entry.
        texts: of the split, one list per template, as :class:`mtl.data.reading.Split` has them.
        against: another entry of the task, whose answers to the same rows are compared.
        top: how many pairs, mistakes, mended and broken rows are listed.
        notes: what else is to be said.

    Raises:
        RequestError: see :func:`answered`; ``against`` answers other rows.
        ZooError: stored answers are damaged.
    """
    found = answered(entry, split, task)
    given, right, sure = found.given, found.right, found.confidence()
    if texts is not None and texts and len(texts[0]) <= int(given.row.max(initial=-1)):
        raise ZooError(f"{entry.ref} answers rows that its split {split} has not.")
    parts: dict[str, Any] = {}
    if found.kind in CLASSED:
        confusion = confuse(given.label, given.prediction, found.names)
        rows, macro = class_rows(given.label, given.prediction, found.names)
        parts = {"classes": rows, "macro": macro, "confusion": confusion}
        parts["pairs"] = most_confused(confusion, top)
        if found.kind != "candidates":
            parts["calibration"] = calibrate(sure, right)
    elif found.kind == "multilabel":
        parts["classes"], parts["macro"] = class_rows(given.label, given.prediction, found.names)
        certain = 1 / (1 + np.exp(-np.abs(given.scores.astype(np.float64))))
        parts["calibration"] = calibrate(certain.ravel(), (given.label == given.prediction).ravel())
    elif found.kind == "regression":
        parts["residuals"] = residuals(given.label, given.prediction)
    elif found.kind != "span_extraction":
        raise RequestError(
            f"{entry.ref} is of the kind {show(found.kind)}: nothing is known of it."
        )
    remark = [_REMARKS[found.kind]] if found.kind in _REMARKS else []
    return ErrorReport(
        ref=entry.ref,
        digest=entry.digest,
        task=found.task,
        kind=found.kind,
        method=entry.manifest.method,
        seed=entry.manifest.seed,
        split=split,
        n=len(given.row),
        wrong=None if found.kind == "regression" else int((~right).sum()),
        mistakes=_mistakes(found, _worst(found, ~right, sure, top), sure, texts),
        compared=None if against is None else _compare(found, against, task, texts, top),
        notes=(*remark, *notes),
        **parts,
    )


def _distance(found: Answered) -> np.ndarray:
    label, answer = (np.asarray(v, np.float64) for v in (found.given.label, found.given.prediction))
    far: np.ndarray = np.abs(answer - label).reshape(len(label))
    return np.nan_to_num(far, nan=np.inf)


def _worst(found: Answered, wrong: np.ndarray, sure: np.ndarray, top: int) -> np.ndarray:
    """Places of the surest of ``wrong`` rows, of a regression of those farthest off."""
    by = _distance(found) if found.kind == "regression" else np.nan_to_num(sure, nan=-np.inf)
    places = np.flatnonzero(wrong)
    if found.kind == "regression":
        places = places[by[places] > 0]
    return places[np.argsort(-by[places], kind="stable")][:top]


def _mistakes(
    found: Answered, places: np.ndarray, sure: np.ndarray, texts: Sequence[Sequence[str]] | None
) -> tuple[Mistake, ...]:
    listed = []
    for place in map(int, places):
        row = int(found.given.row[place])
        words = tuple(str(column[row]) for column in texts or ())
        label, answer = found.given.label[place], found.given.prediction[place]
        score = float(sure[place])
        listed.append(
            Mistake(
                row=row,
                label=found.words(label, words),
                predicted=found.words(answer, words),
                confidence=score if np.isfinite(score) else None,
                difference=float(answer - label) if found.kind == "regression" else None,
                texts=words,
            )
        )
    return tuple(listed)


def _compare(
    ours: Answered,
    other: Entry,
    task: str | None,
    texts: Sequence[Sequence[str]] | None,
    top: int,
) -> Compared:
    from scipy.stats import binomtest

    theirs = answered(other, ours.split, task or ours.task)
    same = (
        theirs.task == ours.task
        and np.array_equal(theirs.given.row, ours.given.row)
        and np.array_equal(theirs.given.label, ours.given.label)
    )
    if not same:
        raise RequestError(
            f"{ours.entry.ref} and {other.ref} cannot be compared row by row: they answer other "
            f"rows, or rows with other labels, on the split {ours.split!r}."
        )
    if ours.kind == "regression":
        near, far = _distance(ours), _distance(theirs)
        mended, broken = near < far, near > far
        equal = (int((near == far).sum()), 0)
        measure = np.nan_to_num(np.abs(near - far), nan=0.0)
    else:
        mended, broken = ours.right & ~theirs.right, ~ours.right & theirs.right
        equal = (int((ours.right & theirs.right).sum()), int((~ours.right & ~theirs.right).sum()))
        measure = None
    up, down = int(mended.sum()), int(broken.sum())
    p = float(binomtest(up, up + down, 0.5).pvalue) if up + down else None
    lists = []
    for side, places in ((theirs, mended), (ours, broken)):
        sure = side.confidence()
        by = sure if measure is None else measure
        chosen = np.flatnonzero(places)
        order = np.argsort(-np.nan_to_num(by[chosen], nan=-np.inf), kind="stable")
        lists.append(_mistakes(side, chosen[order][:top], sure, texts))
    test = CLOSER if ours.kind == "regression" else MCNEMAR
    return Compared(other.ref, up, down, equal, p, test, lists[0], lists[1])
