"""How much each source of a composition counts for the rows that were answered, by their answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.data.new_rows import NEW
from mtl.data.task_data import rows_of
from mtl.zoo.composition import CONSTANT

if TYPE_CHECKING:
    from mtl.data import TaskData
    from mtl.predict.answers import Answers
    from mtl.predict.model import Model

ALL_ROWS = "all rows"


@dataclass(frozen=True)
class Explained:
    """Mean share of every source over the sites, by group of rows.

    Attributes:
        kind: what is shared out: ``omega``, ``attention``, … (:mod:`mtl.zoo.composition`).
        sources: ids of their tasks.
        groups: answer (or "all rows") → rows in it, share of each source (they add up to 1).
    """

    kind: str
    sources: tuple[str, ...]
    groups: Mapping[str, tuple[int, tuple[float, ...]]]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        groups = {name: [rows, list(share)] for name, (rows, share) in self.groups.items()}
        return {"kind": self.kind, "sources": list(self.sources), "groups": groups}

    @staticmethod
    def from_dict(value: Mapping[str, Any]) -> Explained:
        """Back from :meth:`to_dict`."""
        groups = {name: (rows, tuple(share)) for name, (rows, share) in value["groups"].items()}
        return Explained(value["kind"], tuple(value["sources"]), groups)

    def with_(self, other: Explained) -> Explained:
        """Both together, each group weighted by its rows."""
        groups = dict(self.groups)
        for name, (rows, share) in other.groups.items():
            before, mean = groups.get(name, (0, (0.0,) * len(share)))
            total = before + rows
            joined = (np.array(mean) * before + np.array(share) * rows) / total
            groups[name] = (total, tuple(joined.tolist()))
        return Explained(self.kind, self.sources, groups)

    def text(self) -> str:
        """A table: a row per group, a column per source."""
        from tabulate import tabulate

        rows = [
            [name, count, *(f"{value:.3f}" for value in share)]
            for name, (count, share) in self.groups.items()
        ]
        head = f"share of each source ({self.kind}, mean over the sites)"
        return f"{head}\n" + tabulate(rows, headers=["answer", "rows", *self.sources])


def explain_piece(model: Model, data: TaskData, answers: Answers) -> Explained | None:
    """The shares for the rows of ``data``, which were just answered; None where nothing says so.

    Weights of the ScaLearn family and of a soup are the same for every row: one group. Attention
    depends on the rows: those of each answer go through the model once more, as a group.
    """
    shares = model.loaded.shares
    found = None if shares is None else shares()
    if shares is None or found is None:
        return None
    sources = tuple(str(parent["task"]) for parent in model.entry.manifest.parents)
    whole = {ALL_ROWS: (len(answers), _mean(found.share))}
    named = all(isinstance(label, str) for label in answers.labels)
    if found.kind in CONSTANT or data.spec.kind not in {"classification", "multiple_choice"}:
        return Explained(found.kind, sources, whole)
    groups = dict(whole)
    labels = np.asarray(answers.labels, dtype=object)
    for name in data.spec.labels if named else ():
        rows = np.flatnonzero(labels == name)
        if len(rows):
            model.answer(rows_of(data, NEW, rows))
            part = shares()
            assert part is not None
            groups[name] = (len(rows), _mean(part.share))
    return Explained(found.kind, sources, groups)


def _mean(share: np.ndarray) -> tuple[float, ...]:
    return tuple(float(value) for value in np.asarray(share).mean(axis=1))
