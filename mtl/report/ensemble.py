"""How far an ensemble of what a zoo already holds would go: an upper line beside compositions.

Stored answers are averaged, no model runs. Members are taken greedily on dev, with replacement
(Caruana et al. 2004, ensemble selection): begin with the best, add whatever makes dev best, stop
when nothing does. Test rows are scored once, at the end. An ensemble costs as many forward passes
as it has different members; it is no entry and folds into nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.errors import RequestError
from mtl.tasks import TaskSpec, score
from mtl.tasks.caveats import summarise
from mtl.words import counted
from mtl.zoo import read_predictions
from mtl.zoo.caveats import error_text
from mtl.zoo.names import predictions_file

if TYPE_CHECKING:
    from mtl.zoo import Entry, Predictions

KINDS = ("classification", "multiple_choice", "regression", "multilabel")
MOST = 25
"""Members of an ensemble at most, each counted as often as it was taken."""


@dataclass(frozen=True)
class Ensemble:
    """An ensemble chosen on dev.

    Attributes:
        members: references, and how often each was taken.
        metric: the task's headline, by which it was chosen.
        dev, test: metric → value, standard error, n, caveat.
        best: the reference that is best on dev alone; best_dev, best_test: its headline.
        left_out: reference → why its answers could not be used.
    """

    task: str
    metric: str
    members: dict[str, int]
    dev: dict[str, Any]
    test: dict[str, Any]
    best: str
    best_dev: float
    best_test: float
    left_out: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return dict(self.__dict__)

    def text(self) -> str:
        """A table of the members, and what they reach together."""
        from tabulate import tabulate

        rows = [[ref, times] for ref, times in self.members.items()]
        table = tabulate(rows, headers=["member", "weight"])
        test = self.test[self.metric]
        lines = [
            f"Ensemble for {self.task}, chosen on dev by {self.metric}: "
            f"{counted(len(self.members), 'member')}",
            table,
            f"test {self.metric}: {error_text(test)} together, {self.best_test:.4f} the best on dev"
            f" alone ({self.best})",
        ]
        lines += [f"left out: {ref}: {why}" for ref, why in self.left_out.items()]
        return "\n".join(lines)


def ensemble_of(entries: Sequence[Entry]) -> Ensemble:
    """Choose an ensemble among entries of one task, by their stored answers on dev.

    Raises:
        RequestError: no two entries whose stored answers are of the same rows, or a kind of task
            whose answers cannot be averaged.
    """
    tasks = {str(entry.manifest.task["id"]) for entry in entries}
    if len(tasks) != 1:
        raise RequestError(
            f"An ensemble is of entries of one task, not of {len(tasks)}: "
            f"{', '.join(sorted(tasks)) or 'there is none'}."
        )
    spec = _spec(entries[0])
    if spec.kind not in KINDS:
        raise RequestError(
            f"Answers of {spec.id} ({spec.kind}) cannot be averaged; ensembles are for "
            f"{', '.join(KINDS)}."
        )
    found, left_out = _answers(entries)
    if len(found) < 2:
        why = "".join(f" {ref}: {reason}." for ref, reason in left_out.items())
        raise RequestError(
            f"An ensemble for {spec.id} needs two entries that store their answers on dev and on "
            f"the same rows; there {'is' if len(found) == 1 else 'are'} {len(found)}.{why}"
        )
    refs = list(found)
    dev, test = ([_scores(spec, found[ref][split]) for ref in refs] for split in (0, 1))
    label_dev, label_test = (found[refs[0]][split].label for split in (0, 1))

    def value(scores: np.ndarray, label: np.ndarray) -> float:
        number = score(spec, _decoded(spec, scores), label, {})[spec.headline]
        return float(number) if np.isfinite(number) else float("-inf")

    alone = [value(scores, label_dev) for scores in dev]
    best = int(np.argmax(alone))
    taken, total, reached = [best], dev[best].copy(), alone[best]
    while len(taken) < MOST:
        tried = [value((total + scores) / (len(taken) + 1), label_dev) for scores in dev]
        place = int(np.argmax(tried))
        if tried[place] <= reached:
            break
        taken.append(place)
        total, reached = total + dev[place], tried[place]
    members = {refs[place]: taken.count(place) for place in sorted(set(taken), key=taken.index)}
    together = [sum(scores[place] for place in taken) / len(taken) for scores in (dev, test)]
    return Ensemble(
        task=spec.id,
        metric=spec.headline,
        members=members,
        dev=_summary(spec, np.asarray(together[0]), label_dev),
        test=_summary(spec, np.asarray(together[1]), label_test),
        best=refs[best],
        best_dev=alone[best],
        best_test=value(test[best], label_test),
        left_out=left_out,
    )


def _spec(entry: Entry) -> TaskSpec:
    told = entry.manifest.task.get("spec")
    if not isinstance(told, dict):
        raise RequestError(f"{entry.ref} does not say how its task is read.")
    return TaskSpec.from_dict(told)


def _answers(
    entries: Sequence[Entry],
) -> tuple[dict[str, tuple[Predictions, Predictions]], dict[str, str]]:
    """Reference → answers on dev and test, of the entries whose rows are those of the first."""
    found: dict[str, tuple[Predictions, Predictions]] = {}
    left_out: dict[str, str] = {}
    first = entries[0]
    for entry in entries:
        names = [predictions_file("dev"), predictions_file()]
        if not all(name in entry.files for name in names):
            left_out[entry.ref] = "it stores no answers on dev"
            continue
        dev, test = (read_predictions(entry.folder, name) for name in names)
        if found:
            why = _apart(entry, (dev, test), first, next(iter(found.values())))
            if why:
                left_out[entry.ref] = why
                continue
        else:
            first = entry
        found[entry.ref] = (dev, test)
    return found, left_out


def _apart(
    entry: Entry,
    answers: tuple[Predictions, Predictions],
    first: Entry,
    its: tuple[Predictions, Predictions],
) -> str:
    """Why answers of ``entry`` cannot be averaged with those of ``first``; empty where they can.

    Texts made by the same templates are the same by their fingerprints; of others the rows' places
    in the data and their labels tell.
    """
    one, other = entry.manifest, first.manifest
    if one.task.get("labels") != other.task.get("labels"):
        return "its labels are others, or in another order"
    for ours, theirs in zip(answers, its, strict=True):
        if not (np.array_equal(ours.label, theirs.label) and np.array_equal(ours.row, theirs.row)):
            return "its dev or test rows are others"
    templates = [
        {key: (m.task.get("spec") or {}).get(key) for key in ("inputs", "prepare")}
        for m in (one, other)
    ]
    if templates[0] == templates[1]:
        marks = [
            [(m.data.get("splits") or {}).get(s) for s in ("dev", "test")] for m in (one, other)
        ]
        if marks[0] != marks[1]:
            return "its dev or test rows have other texts"
    return ""


def _scores(spec: TaskSpec, stored: Predictions) -> np.ndarray:
    """What is averaged: probabilities, or values."""
    raw = stored.scores.astype(np.float64)
    if spec.kind == "regression":
        return raw
    if spec.kind == "multilabel":
        return 1 / (1 + np.exp(-raw))
    shifted = np.exp(raw - raw.max(axis=1, keepdims=True))
    found: np.ndarray = shifted / shifted.sum(axis=1, keepdims=True)
    return found


def _decoded(spec: TaskSpec, scores: np.ndarray) -> np.ndarray:
    if spec.kind == "regression":
        return scores[:, 0].astype(np.float32)
    if spec.kind == "multilabel":
        return (scores > 0.5).astype(np.int64)
    return scores.argmax(axis=1).astype(np.int64)


def _summary(spec: TaskSpec, scores: np.ndarray, label: np.ndarray) -> dict[str, Any]:
    prediction = _decoded(spec, scores)
    values = score(spec, prediction, label, {})
    outputs = spec.num_outputs if spec.kind == "classification" else None
    return {
        name: summarise(name, value, prediction, label, {}, names=spec.labels, outputs=outputs)
        for name, value in values.items()
    }
