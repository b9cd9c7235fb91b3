"""Answering a file: read by pieces, answered, written by parts, joined; what was killed goes on."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.data.new_rows import NEW, new_rows
from mtl.data.origins import read_parquet_pieces
from mtl.data.textfiles import pieces_of
from mtl.errors import RequestError
from mtl.files import locked, sha256_json, write_json, writing
from mtl.predict.answers import unseen_text
from mtl.predict.explain import Explained, explain_piece
from mtl.predict.tables import to_table
from mtl.predict.writing import SEPARATOR, beside, check_suffix, join_parts, write_part
from mtl.tasks.dialect import Dialect
from mtl.words import counted

if TYPE_CHECKING:
    import pyarrow as pa

    from mtl.predict.answers import Answers
    from mtl.predict.model import Model
    from mtl.tasks import TaskSpec

MARK = "job.json"
ROWS = 1 << 16
"""Rows that are answered together: all batches of so many are sorted by length."""


@dataclass(frozen=True)
class Job:
    """What is to be answered, and how it is written.

    Attributes:
        task: which of the tasks of a joint model.
        scores: a column per class, ``score_<name>``, too.
        explain: how much each source counts, by predicted label.
        column: name of the column with the answer.
        dialect: what the suffix of ``source`` does not say.
        overwrite: replace ``target``, and begin anew what another job left.
        rows: rows per piece.
    """

    source: Path
    target: Path
    task: str | None = None
    scores: bool = False
    explain: bool = False
    column: str = "prediction"
    dialect: Dialect = field(default_factory=Dialect)
    overwrite: bool = False
    rows: int = ROWS


@dataclass
class Outcome:
    """What became of a job.

    Attributes:
        rows: of the input; answers: written ones (more where a row function makes several of one).
        kept: rows that an interrupted job had answered already.
        seconds: of this one.
        blank: answers to rows without any text; without: answers that are the empty set.
        unseen: answers by the pooled gates, to rows of groups that training did not know; column:
            that of the groups, empty where answers do not depend on one.
        counts: label → how often it was answered; empty for numbers and texts.
        explained: how much each source counts, where that was asked for.
    """

    rows: int = 0
    answers: int = 0
    kept: int = 0
    seconds: float = 0.0
    blank: int = 0
    without: int = 0
    unseen: int = 0
    column: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    explained: Explained | None = None


def check_files(job: Job) -> None:
    """Whether a job's files can be read and written; no model is needed to say so.

    Raises:
        RequestError: the input is no file, the output is there, is the input, or has another form.
    """
    check_suffix(job.target)
    if not job.source.is_file():
        what = "is a folder, not a file" if job.source.is_dir() else "is not there"
        raise RequestError(f"--input {job.source} {what}.")
    if job.source.resolve() == job.target.resolve():
        raise RequestError(f"--output {job.target} is the input itself; name another file.")
    if job.target.exists() and not job.overwrite:
        raise RequestError(f"--output {job.target} is there already; --overwrite replaces it.")


def answer_file(
    model: Model, job: Job, progress: Callable[[int], object] = lambda rows: None
) -> Outcome:
    """Answer every row of ``job.source`` into ``job.target``, which appears once it is whole.

    Beside it stands ``<target>.parts`` until then. The same job, run again, goes on from there.

    Args:
        progress: called with the rows of every piece.

    Raises:
        RequestError: the file cannot be read or its rows not answered (names the line), or the
            target is there.
        RunError: it cannot be written, or another process is at it.
    """
    check_files(job)
    spec = model.spec(job.task)
    folder = job.target.with_name(f"{job.target.name}.parts")
    with (
        writing(f"{job.target}"),
        locked(folder.with_name(f".{folder.name}.lock"), f"answering {job.source}"),
    ):
        try:
            _open_folder(model, job, folder)
            return _answer(model, spec, job, folder, progress)
        except RequestError:  # the rows are wrong: mended, they are another job
            if _is_of(folder, _identity(model, job)):
                shutil.rmtree(folder)
            raise
        finally:
            folder.with_name(f".{folder.name}.lock").unlink(missing_ok=True)
            folder.with_name(f".{folder.name}.owner").unlink(missing_ok=True)


def _answer(
    model: Model, spec: TaskSpec, job: Job, folder: Path, progress: Callable[[int], object]
) -> Outcome:
    suffix = job.target.suffix.lower()
    found, begun = Outcome(column=model.gate), time.monotonic()
    parts: list[Path] = []
    names: list[str] = []
    for number, (table, lines) in enumerate(_pieces(job)):
        part = folder / f"{number:06d}{suffix}"
        note = part.with_suffix(".json")
        if not (part.is_file() and note.is_file()):
            answered, told = _piece(model, spec, job, table, _places(job, lines, found.rows))
            write_part(part, answered, suffix)
            write_json(note, told)
        else:
            found.kept += len(table)
        told = json.loads(note.read_text(encoding="utf-8"))
        names = names or told["names"]
        if told["names"] != names and suffix in SEPARATOR:
            raise RequestError(
                f"{job.source}: from row {found.rows} on its columns are "
                f"{', '.join(told['names'])}, before they were {', '.join(names)}."
            )
        parts.append(part)
        found.rows += len(table)
        found.answers += told["answers"]
        found.blank += told.get("blank", 0)
        found.without += told.get("without", 0)
        found.unseen += told.get("unseen", 0)
        for label, count in told["counts"].items():
            found.counts[label] = found.counts.get(label, 0) + count
        if told.get("explained"):
            piece = Explained.from_dict(told["explained"])
            found.explained = piece if found.explained is None else found.explained.with_(piece)
        progress(len(table))
    if not parts:
        raise RequestError(f"{job.source} holds no row; there is nothing to answer.")
    join_parts(parts, names, job.target)
    shutil.rmtree(folder)
    found.seconds = time.monotonic() - begun
    return found


def _identity(model: Model, job: Job) -> dict[str, Any]:
    """What must be the same for parts to be of this job."""
    stat = job.source.stat()
    return {
        "entry": model.entry.digest,
        "input": [str(job.source.resolve()), stat.st_size, stat.st_mtime_ns],
        "task": job.task,
        "columns": [job.scores, job.explain, job.column],
        "dialect": job.dialect.to_data(),
        "rows": job.rows,
        "suffix": job.target.suffix.lower(),
        **({"precision": model.precision} if model.precision else {}),
    }


def _is_of(folder: Path, identity: dict[str, Any]) -> bool:
    """Whether the parts in ``folder`` are of the job with this identity."""
    try:
        told = json.loads((folder / MARK).read_text(encoding="utf-8"))
        return bool(told["job"] == sha256_json(identity))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _open_folder(model: Model, job: Job, folder: Path) -> None:
    """Make the folder of parts, or find the one that this very job left."""
    identity = _identity(model, job)
    if folder.exists():
        if _is_of(folder, identity):
            return
        if not job.overwrite:
            raise RequestError(
                f"{folder} holds parts of another job: another entry, input or form of answers. "
                "--overwrite begins anew."
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    write_json(folder / MARK, {"job": sha256_json(identity), **identity})


def _places(job: Job, lines: Sequence[int], before: int) -> Callable[[int], str]:
    """Row of a piece → where it stands in the file."""
    return lambda row: f"line {lines[row]}" if lines else f"row {before + row}"


def _pieces(job: Job) -> Iterator[tuple[pa.Table, Sequence[int]]]:
    if job.source.suffix.lower() == ".parquet":
        return ((table, ()) for table in read_parquet_pieces(job.source, job.rows))
    return pieces_of(job.source, job.dialect, job.rows)


def _piece(
    model: Model, spec: TaskSpec, job: Job, table: pa.Table, place: Callable[[int], str]
) -> tuple[pa.Table, dict[str, Any]]:
    """A piece with its answers beside it, and what is to be known of it later."""
    data = new_rows(spec, to_table(spec, table), str(job.source), place, model.gate)
    answers = model.answer(data)
    shown = table
    if len(answers) != len(table):  # a row function made several rows of one
        import pyarrow as pa

        split = data.splits[NEW]
        texts = {f"text_{place}": list(column) for place, column in enumerate(split.texts, 1)}
        shown = pa.table({"row": np.asarray(split.table["group"]), **texts})
    columns = answer_columns(spec, answers, job)
    clash = [name for name in columns if name in shown.column_names]
    if clash:
        raise RequestError(
            f"{job.source} has a column {clash[0]!r} already: name that of the answers with "
            "--column NAME."
        )
    told: dict[str, Any] = {
        "names": [*shown.column_names, *columns],
        "answers": len(answers),
        "blank": data.splits[NEW].blank(),
        "without": sum(label == [] for label in answers.labels),
        "unseen": model.unseen(data),
        "counts": _counts(spec, answers),
    }
    if job.explain:
        explained = explain_piece(model, data, answers)
        told["explained"] = None if explained is None else explained.to_dict()
    return beside(shown, columns), told


def answer_columns(spec: TaskSpec, answers: Answers, job: Job) -> dict[str, Any]:
    """The columns that a file of answers has beside those of the rows."""
    labels: Any = list(answers.labels)
    if spec.kind == "regression":
        labels = answers.prediction.astype(np.float32)
    elif spec.kind == "multilabel" and spec.label_separator:
        labels = [spec.label_separator.join(names) for names in labels]
    columns = {job.column: labels}
    if job.scores and spec.kind != "regression":
        prefix = "score" if job.column == "prediction" else f"{job.column}_score"
        columns |= {
            f"{prefix}_{name}": answers.scores[:, place] for place, name in enumerate(answers.names)
        }
    return columns


def _counts(spec: TaskSpec, answers: Answers) -> dict[str, int]:
    if spec.kind in {"regression", "span_extraction"}:
        return {}
    counts = dict.fromkeys(spec.labels, 0)
    for label in answers.labels:
        for name in label if isinstance(label, list) else (label,):
            counts[name] += 1
    return counts


def outcome_text(found: Outcome, job: Job) -> str:
    """What a job did, in a sentence and a table."""
    from tabulate import tabulate

    kept = f" ({found.kept:,} of an interrupted job kept)" if found.kept else ""
    rate = (found.rows - found.kept) / found.seconds if found.seconds else 0.0
    lines = [
        f"{job.target}: {counted(found.answers, 'answer')}{kept}, {found.seconds:.1f} s, "
        f"{rate:,.0f} rows a second"
    ]
    if found.blank:
        lines.append(f"note: {counted(found.blank, 'row has', 'rows have')} no text at all")
    if found.unseen:
        lines.append(f"note: {unseen_text(found.column, found.unseen, found.answers)}")
    if found.counts:
        shown = sorted(found.counts.items(), key=lambda item: -item[1])
        never = [name for name, count in shown if not count]
        if len(shown) > 20:  # of many labels only those that were answered, and how many were not
            shown = shown[: len(shown) - len(never)]
        if found.without:
            shown = [*shown[:19], ("(no label)", found.without), *shown[19:]]
        rows = [[name, count, f"{count / found.answers:.1%}"] for name, count in shown[:20]]
        lines += ["", tabulate(rows, headers=["answer", "rows", "share"])]
        if len(shown) > 20:
            lines.append(f"… and {len(shown) - 20} more")
        if len(found.counts) > 20 and never:
            lines.append(f"{len(never)} of {len(found.counts)} labels were never the answer")
    return "\n".join(lines)
