"""Predict, without any training run, which sources of the zoo help a target."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.compose.refusals import argument
from mtl.errors import MtlError, RequestError
from mtl.files import sha256_json
from mtl.graph.evidence import Evidence, write_evidence
from mtl.graph.scores import SCORES, Unscorable, baseline, compute
from mtl.tasks import KINDS
from mtl.typed import graph_places

if TYPE_CHECKING:
    from pathlib import Path

    from mtl.compose.features import Extractor
    from mtl.compose.halving import SelfTest
    from mtl.data import TaskData
    from mtl.graph.scores import Score
    from mtl.zoo import Entry


@dataclass(frozen=True)
class Suggestion:
    """Scores of all candidates for one target.

    Attributes:
        values: source task → score → value.
        skipped: source task → score → why there is no value.
        base: score → value of the plain base's features, where the score judges features.
        left_out: source task → why the whole candidate was left out.
        rows: rows of the target that were looked at.
        entries: source task → its entry.
        precision: that the passes were made in.
        self_test: what chose it (:mod:`mtl.compose.halving`), None where nothing was to choose.
    """

    target: str
    rows: int
    values: dict[str, dict[str, float]]
    skipped: dict[str, dict[str, str]]
    base: dict[str, float]
    left_out: dict[str, str]
    entries: dict[str, Entry]
    precision: str = "fp32"
    self_test: SelfTest | None = None

    def ranked(self, score: str) -> list[str]:
        """Sources with a value of ``score``, best first."""
        found = [task for task in self.values if score in self.values[task]]
        return sorted(found, key=lambda task: (-self.values[task][score], task))

    def to_dict(self) -> dict[str, Any]:
        return {
            "target": self.target,
            "rows": self.rows,
            "values": self.values,
            "skipped": self.skipped,
            "base": self.base,
            "left_out": self.left_out,
            "entries": {task: entry.ref for task, entry in self.entries.items()},
            "precision": self.precision,
            "self_test": self.self_test.to_dict() if self.self_test else None,
        }


def chosen_scores(names: Sequence[str]) -> list[Score]:
    """The scores called ``names``, in their order; none named means all.

    Raises:
        RequestError: an unknown name, or one twice.
    """
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise RequestError(f"--scores names {', '.join(twice)} twice.")
    return [SCORES.get(name) for name in names] if names else [*SCORES.usable().values()]


def score_sources(
    data: TaskData,
    entries: Sequence[Entry],
    source_data: Callable[[Entry], TaskData],
    scores: Sequence[Score],
    extractor: Extractor,
    *,
    own: Entry | None = None,
    left_out: dict[str, str] | None = None,
    progress: Callable[[str], object] | None = None,
) -> Suggestion:
    """Every score for every candidate; what cannot be scored is named, never guessed.

    Args:
        data: the target's data; at most ``extractor.limit`` rows of its training split are used.
        entries: one stage-one entry per candidate; the target's own is no candidate.
        source_data: gives a candidate's own data.
        own: the target's own adapter, for weight similarity.
        left_out: candidates that were refused before, with the reason.
        progress: called with a candidate's task after it was scored.

    Raises:
        RequestError: the target has one class only, or rows without one vector each (windows); or
            a candidate is of another base.
    """
    from mtl.runs.loading import check_base

    for entry in entries:
        check_base(entry, extractor.backbone.base)
    if KINDS.get(data.spec.kind).windows:
        raise RequestError(
            f"Cannot score sources for {data.spec.id}: rows of {data.spec.kind} tasks are cut into "
            "windows, so that no row has one vector. Measure transfer instead "
            f"(python -m mtl.graph measure --targets {shlex.quote(argument(data.spec))}"
            f"{graph_places()}), or name the sources."
        )
    labels = data.splits["train"].labels
    if len(labels) < 2 or not np.any(labels != labels[:1]):
        what = "class" if data.spec.kind == "classification" else "value"
        raise RequestError(
            f"Cannot score sources for {data.spec.id}: its {len(labels)} training rows have one "
            f"{what} only. Use more rows (--max-train-samples), or mend the labels."
        )
    needs = {need for score in scores for need in score.needs}
    # features of the plain base are what the features of every source are compared with
    if any(score.features for score in scores):
        needs.add("target.first")
    of_target = {need.partition(".")[2] for need in needs if need.startswith("target.")}
    missing: dict[str, str] = {}
    try:
        target = extractor.view(data, of_target)
    except Unscorable as error:  # TaskEmb has no head for this target; the rest can be had
        missing["target.fisher"] = str(error)
        target = extractor.view(data, of_target - {"fisher"})
    if "maps" in of_target:
        missing["target.maps"] = "the zoo has no adapter of the target on these rows"
        if own is not None:
            try:
                target = replace(target, maps=extractor.maps(own))
            except (MtlError, Unscorable) as error:
                missing["target.maps"] = str(error).partition("\n")[0]
    rows = min(len(labels), extractor.limit)
    precision = extractor.device.precision
    found = Suggestion(data.spec.id, rows, {}, {}, {}, dict(left_out or {}), {}, precision)
    for score in scores:
        try:
            value = baseline(score, target)
        except Unscorable:
            continue
        if value is not None:
            found.base[score.name] = value
    for entry in entries:
        task = entry.manifest.task["id"]
        if task == data.spec.id:
            continue
        candidate = extractor.candidate(
            target, data, entry, partial(source_data, entry), needs, missing
        )
        found.entries[task] = entry
        values, skipped = found.values.setdefault(task, {}), found.skipped.setdefault(task, {})
        for score in scores:
            try:
                values[score.name] = compute(score, candidate)
            except Unscorable as error:
                skipped[score.name] = str(error)
        if progress is not None:
            progress(task)
    return found


def keep_suggestion(found: Suggestion, data: TaskData, extractor: Extractor, folder: Path) -> Path:
    """Write the predictions as evidence, one file for the same question asked again.

    Raises:
        RunError: the system refuses.
    """
    base = extractor.backbone.base.fingerprint
    rows = data.fingerprints["train"]
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    exact = found.precision == "fp32"
    how: dict[str, Any] = {} if exact else {"precision": found.precision}
    if found.self_test is not None:
        how["self_test"] = found.self_test.to_dict()
    items = [
        Evidence(
            source=task,
            target=found.target,
            kind="predicted",
            method=score,
            value=value,
            n=found.rows,
            base=base,
            rows=rows,
            provenance={
                "source": {"ref": found.entries[task].ref, "digest": found.entries[task].digest},
                "plain base": found.base.get(score),
                "command": extractor.workspace.command,
                "created": now,
                **how,
            },
        )
        for task, values in found.values.items()
        for score, value in values.items()
    ]
    question = {
        "target": found.target,
        "base": base,
        "rows": rows,
        "limit": extractor.limit,
        "scores": sorted({item.method for item in items}),
        "sources": sorted(entry.digest for entry in found.entries.values()),
        **({} if exact else {"precision": found.precision}),
    }
    return write_evidence(folder, f"suggest-{sha256_json(question)[:16]}", items)
