"""``mtl.results`` and ``mtl.error_report``: what ``mtl.report`` shows, as Python objects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mtl.errors import MtlError, RequestError, did_you_mean, unknown
from mtl.face.places import root_of
from mtl.report.errors import TOP, Answered, ErrorReport, answered, own_adapter
from mtl.report.errors import error_report as report_on
from mtl.report.picking import BEST_DEV
from mtl.report.tables import Row, compared_with, having
from mtl.report.tables import results as rows_of
from mtl.runs.workspace import open_workspace
from mtl.tasks import load_task
from mtl.tasks.yamls import is_file_name
from mtl.zoo import Entry, Zoo, open_zoo

if TYPE_CHECKING:
    from mtl.runs.workspace import Workspace


def results(
    target: str | None = None,
    *,
    suite: str | None = None,
    where: Sequence[str] = (),
    pick: str | None = None,
    zoo: Zoo | str | Path | None = None,
) -> list[Row]:
    """The rows of ``python -m mtl.report``: each method on a task, over its seeds.

    Examples:
        >>> import mtl
        >>> rows = mtl.results("entail", pick="best-dev")  # doctest: +SKIP
        >>> max(rows, key=lambda row: row.dev.mean).method  # doctest: +SKIP
        'scalearn'

    Args:
        target: only this task: its name, or its YAML file.
        suite: only entries of this suite; its YAML file: of all its tasks, wherever they were run.
        where: only runs with these settings: ``["lr=1e-3"]``.
        pick: ``"best-dev"``: of runs that differ in settings, data or sources the best on dev.
        zoo: its folder; None: ``MTL_ZOO``, else ``adapters_zoo``.

    Returns:
        Rows with ``task, method, dev, test, gain, seeds, settings`` and more. ``dev``, ``test`` and
        ``gain`` have ``mean, low, high, n``, and are None where there is nothing.

    Raises:
        RequestError: no entry has a setting of ``where``, a ``target`` that is neither in the zoo
            nor a known task, or another ``pick``.
    """
    if pick not in (None, BEST_DEV):
        raise unknown("pick", str(pick), [BEST_DEV])
    if target is not None and is_file_name(target):
        target = load_task(target).id
    opened = open_zoo(root_of(zoo))
    entries = opened.entries(suite=suite, task=target)
    if target is not None and not entries:
        guess = did_you_mean(target, {summary.task for summary in opened.summaries()})
        try:
            load_task(target)  # a task that has no results yet
        except RequestError as error:
            raise RequestError(
                f"The zoo {opened.root} has no entry of a task {target!r}.{guess or f' {error}'}"
            ) from error
    found = having(entries, where)
    beside = compared_with(found, opened) if suite or where else []
    return rows_of(found, pick=pick, beside=beside)


def error_report(
    entry: Entry | str,
    split: str = "test",
    *,
    target: str | None = None,
    against: Entry | str | None = None,
    top: int = TOP,
    zoo: Zoo | str | Path | None = None,
    data_root: str | Path | None = None,
    tasks: Sequence[str] = (),
) -> ErrorReport:
    """What a stored entry gets wrong: ``python -m mtl.report --errors``; no model is loaded.

    Examples:
        >>> import mtl
        >>> report = mtl.error_report("entail/scalearn/seed0", "dev", top=3)  # doctest: +SKIP
        >>> [(row.texts, row.label, row.predicted) for row in report.mistakes]  # doctest: +SKIP

    Args:
        entry: an entry, its reference, the last parts of it, or the start of its digest.
        split: whose stored answers are looked at.
        target: which of the tasks of a joint model.
        against: another entry of the task, compared row by row; None: of a composition its own
            adapter.
        top: how many mistakes, confused pairs, mended and broken rows are listed.
        zoo: its folder; None: that of ``entry``, else ``MTL_ZOO``, else ``adapters_zoo``.
        data_root: local mirror of Hub datasets, for the texts.
        tasks: files of tasks of your own, for the same.

    Returns:
        ``mistakes`` are the surest first, each with ``row, label, predicted, confidence, texts``;
        then ``classes``, ``confusion``, ``calibration``, ``compared`` and ``notes``, which say why
        where texts are not there.

    Raises:
        RequestError: no such entry, or no stored answers on ``split``; data that were named cannot
            be read.
        ZooError: stored answers are damaged.
    """
    workspace = open_workspace(zoo=root_of(zoo, entry, against), data_root=data_root, tasks=tasks)
    found = [
        None if item is None else workspace.zoo.get(item) if isinstance(item, str) else item
        for item in (entry, against)
    ]
    assert found[0] is not None
    named = bool(tasks or data_root)
    return look(found[0], workspace, split, target, found[1], top, strict=named)[0]


def look(
    entry: Entry,
    workspace: Workspace,
    split: str,
    target: str | None,
    against: Entry | None,
    top: int,
    *,
    strict: bool,
) -> tuple[ErrorReport, Answered]:
    """The report on an entry, and the answers that it is of.

    Args:
        strict: data that cannot be read are an error, not a note.
    """
    zoo, notes = workspace.zoo, list[str]()
    if against is None and entry.manifest.kind == "composition":
        own = own_adapter(entry, zoo)
        if isinstance(own, str):
            notes.append(own)
        else:
            against = own
    entries = [entry, *([against] if against else [])]
    for each in entries:
        zoo.load_check(each)
    with zoo.reading(*entries):
        found = answered(entry, split, target)
        texts = _texts(entry, found, workspace, notes, strict)
        report = report_on(
            entry, split, task=target, texts=texts, against=against, top=top, notes=notes
        )
    return report, found


def _texts(
    entry: Entry, found: Answered, workspace: Workspace, notes: list[str], strict: bool
) -> Sequence[Sequence[str]] | None:
    """The texts of the split, if its data are those of then and can be read on this machine."""
    from mtl.runs.recorded import task_of
    from mtl.runs.verify import parts_of, same_data

    try:
        part = next(part for part in parts_of(entry) if part.task == found.task)
        data = same_data(entry, task_of(entry, workspace, found.task), workspace, part)
        if found.split not in data.splits:
            raise RequestError(f"the data of {found.task} have no split {found.split!r}.")
    except MtlError as error:
        if strict:
            raise
        notes.append(f"rows are numbered, without their texts: {error}")
        return None
    return data.splits[found.split].texts
