"""``mtl.tasks new``: a first task file from the columns of somebody's files, and its guesses."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mtl.checks.columns import Column, find_label, find_texts, read_columns
from mtl.checks.label_guess import (
    KINDS_DRAFTED,
    LabelGuess,
    count_labels,
    guess_labels,
    hidden_files,
)
from mtl.checks.other_forms import Form, other_form
from mtl.checks.sniff import find_dialect
from mtl.errors import RequestError
from mtl.files import write_text
from mtl.tasks.dialect import Dialect
from mtl.tasks.spec import TaskSpec
from mtl.tasks.suites import default_protocol
from mtl.tasks.yamls import SUFFIXES, catalog, parse_yaml

TOKENS_PER_WORD = 1.4
"""About what the encoders' tokenizers make of English."""


@dataclass(frozen=True)
class Draft:
    """A task file that could be written.

    Attributes:
        content: the keys of the file.
        guesses: what was guessed and how to say otherwise, a sentence each.
    """

    content: Mapping[str, Any]
    guesses: tuple[str, ...]


def draft_task(
    task: str,
    files: Mapping[str, Path],
    home: Path,
    *,
    label: Sequence[str] = (),
    texts: Sequence[str] = (),
    kind: str | None = None,
    group_by: str | None = None,
    dialect: Dialect | None = None,
) -> Draft:
    """Guess a task from the columns of its files.

    Args:
        task: the id, ``suite/name``.
        files: split → file; ``train`` is one of them.
        home: folder of the YAML file; paths are written relative to it where they lie near it.
        group_by: the column whose values a hold-out keeps together.
        label, texts, kind, dialect: what is known, in place of a guess; several labels are columns
            of 0 and 1.

    Raises:
        RequestError: unreadable files, no label or text to be found, a column that is not there.
    """
    dialect, guesses = find_dialect([*files.values()], dialect or Dialect())
    columns = read_columns([*files.values()], dialect)
    if not (label or texts or kind) and (form := other_form(columns)):
        return _of_form(task, files, home, dialect, columns, form, guesses, group_by)
    golds = [_named(columns, name, "--label") for name in label] or find_label(columns)
    hidden = [list(files)[place] for place in hidden_files(golds)]
    if hidden:
        files = {split: path for split, path in files.items() if split not in hidden}
        columns = read_columns([*files.values()], dialect)
        golds = [columns[gold.name] for gold in golds]
        guesses.append(
            f"splits: {' and '.join(hidden)} left out, because all labels there are -1 (hidden)"
        )
    named = " ".join(gold.name for gold in golds)
    if not label and len(golds) > 1:
        guesses.append(
            f"label: columns {named}, each 0 or 1 (--label COLUMN [COLUMN …] for others)"
        )
    elif not label:
        guesses.append(f"label: column {named!r} (--label COLUMN for another)")
    used = [_named(columns, name, "--text") for name in texts]
    used = used or find_texts(columns, [gold.name for gold in golds])
    both = [gold.name for gold in golds if gold in used]
    if both:
        raise RequestError(f"Column {both[0]!r} cannot be text and label at once.")
    if len(used) > 2:
        raise RequestError(f"--text names {len(used)} columns; a task has one text or a pair.")
    if not texts:
        rest = [name for name in columns if columns[name] not in [*golds, *used]]
        beside = f"; not used: {', '.join(rest)}" if rest else ""
        found = " and ".join(repr(column.name) for column in used)
        guesses.append(f"texts: {found} (--text COLUMN [COLUMN] for others){beside}")
    for column in used:
        if set(column.name) & set("{}:!"):
            raise RequestError(
                f"Column {column.name!r}: a template cannot name a column with one of {{ }} : ! in "
                "its name. Rename the column."
            )
    guess = guess_labels(golds, kind)
    if not kind:
        others = f"(--kind {'|'.join(KINDS_DRAFTED)} for another)"
        guesses.append(f"kind: {guess.kind}, {guess.why} {others}")
    guesses += guess.said
    content: dict[str, Any] = {
        "id": task,
        "data": {
            "files": {split: nearby(path, home) for split, path in files.items()},
            **dialect.to_data(),
        },
        "kind": guess.kind,
        "inputs": [f"{{{column.name}}}" for column in used],
        **guess.keys,
    }
    length, said_of_length = _max_length(used)
    # No file is there yet, so messages name the task's id.
    spec = TaskSpec.from_dict({**content, "metrics": _any_metric(guess), "max_length": length})
    counted = count_labels(golds, spec)
    rows = {name: seen.count for name, seen in counted.seen.items()}
    content["metrics"], said = _metrics(rows, guess.kind, content.get("labels", []))
    content["max_length"] = length
    if group_by is not None:
        content["group_by"] = _named(columns, group_by, "--group-by").name
    guesses += [*said, *said_of_length]
    if counted.missing:
        first = golds[0].place(counted.missing[0])
        guesses.append(
            f"{len(counted.missing)} of {len(golds[0].values)} rows have no label (first: {first})"
            "; remove or fill them"
        )
    guesses += [f"{f.text} ({'; '.join(map(str, f.examples))})" for f in counted.findings]
    protocol = default_protocol(spec)
    guesses.append(_splits(protocol))
    if protocol != "official" and guess.kind == "classification" and _rare(rows):
        content["stratify"] = False
        guesses.append("stratify: false, because a class has too few rows for a share of each")
    return Draft(content, tuple(guesses))


def _of_form(
    task: str,
    files: Mapping[str, Path],
    home: Path,
    dialect: Dialect,
    columns: Mapping[str, Column],
    form: Form,
    guesses: Sequence[str],
    group_by: str | None,
) -> Draft:
    """A draft of questions with spans, or of a multiple choice."""
    keys, said = form
    data = {split: nearby(path, home) for split, path in files.items()}
    content: dict[str, Any] = {"id": task, "data": {"files": data, **dialect.to_data()}, **keys}
    if group_by is not None:
        content["group_by"] = _named(columns, group_by, "--group-by").name
    protocol = default_protocol(TaskSpec.from_dict(content))
    return Draft(content, (*guesses, *said, _splits(protocol)))


def write_draft(draft: Draft, path: Path) -> TaskSpec:
    """Write the task file; never over another one.

    Raises:
        RequestError: the file is there already, or another file defines the task.
    """
    task = str(draft.content["id"])
    if path.suffix not in SUFFIXES:
        raise RequestError(f"A task file ends in .yaml; {path} does not.")
    if path.exists():
        raise RequestError(f"{path} is there already; it is not overwritten. Give another --out.")
    known = catalog().tasks
    if task in known:
        raise RequestError(f"There is a task {task} already, in {known[task]}. Choose another id.")
    text = render(draft.content, path)
    spec = TaskSpec.from_dict(parse_yaml(text, path), path)  # before anything is written
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return spec


def render(content: Mapping[str, Any], path: Path) -> str:
    """The text of the YAML file. Text stands in double quotes, as in JSON: ``no`` is no false."""
    lines = [f"# python -m mtl.tasks check {shlex.quote(str(path))}"]
    for key, value in content.items():
        if key == "data":
            lines += ["data:", "  files:"]
            lines += [f"    {split}: {_quoted(file)}" for split, file in value["files"].items()]
            more = [(name, item) for name, item in value.items() if name != "files"]
            lines += [f"  {name}: {_quoted(item)}" for name, item in more]
        elif key in {"id", "kind", "metrics", "max_length", "stratify", "label_vectors"}:
            plain = f"[{', '.join(value)}]" if isinstance(value, list) else value
            plain = str(plain).lower() if isinstance(value, bool) else plain
            lines.append(f"{key}: {plain}")
        else:
            lines.append(f"{key}: {_quoted(value)}")
    return "\n".join(lines) + "\n"


def _quoted(value: Any) -> str:
    """JSON, which is YAML, too, but for characters that YAML wants to see escaped."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text)


def nearby(path: Path, home: Path) -> str:
    """Relative to the YAML file if both lie below the working folder, else whole."""
    place, folder, here = path.resolve(), home.resolve(), Path.cwd().resolve()
    if place.is_relative_to(folder) or (place.is_relative_to(here) and folder.is_relative_to(here)):
        return os.path.relpath(place, folder)
    return str(place)


def _named(columns: Mapping[str, Column], name: str, option: str) -> Column:
    if name not in columns:
        from mtl.errors import did_you_mean

        raise RequestError(
            f"{option} {name}: there is no such column.{did_you_mean(name, columns)} The files "
            f"have {', '.join(columns)}."
        )
    return columns[name]


def _any_metric(guess: LabelGuess) -> list[str]:
    return ["pearson" if guess.kind == "regression" else "accuracy"]


def _metrics(
    rows: Mapping[str, int], kind: str, labels: Sequence[str]
) -> tuple[list[str], list[str]]:
    if kind == "regression":
        return ["pearson", "spearman"], []
    if kind == "multilabel":
        return ["macro_f1", "accuracy"], []
    name, most = max(rows.items(), key=lambda item: item[1])
    share = most / sum(rows.values())
    if share > 0.8:
        return ["macro_f1", "accuracy"], [
            f"metrics: macro_f1 first, because {share:.0%} of the rows are {name!r}"
        ]
    if len(labels) == 2:
        return ["accuracy", "f1"], [
            f"metrics: accuracy and f1; f1 is that of {labels[1]!r}, the second label"
        ]
    return ["accuracy", "macro_f1"], []


def _rare(rows: Mapping[str, int]) -> bool:
    """Whether 10 % of the rows, twice, cannot hold a row of every class."""
    return min(rows.values()) < 4 or 0.08 * sum(rows.values()) < len(rows)


def _max_length(texts: Sequence[Column]) -> tuple[int, list[str]]:
    """The least of 128, 256 and 512 tokens that most rows fit into."""
    words = np.zeros(len(texts[0].values))
    for column in texts:
        words += [len(str(value or "").split()) for value in column.values]
    tokens = float(np.quantile(words, 0.95)) * TOKENS_PER_WORD
    length = next((size for size in (128, 256) if tokens <= size), 512)
    if length == 128:
        return length, []
    return length, [f"max_length: {length}, because 1 row in 20 has about {tokens:.0f} tokens"]


def _splits(protocol: str) -> str:
    return {
        "official": "splits: the three files as they are (protocol official)",
        "scalearn": "splits: the dev file is the test; 10 % of train are held out as dev (protocol "
        "scalearn)",
        "holdout": "splits: what is missing of test and dev is held out of train, 10 % each, "
        "always the same rows (protocol holdout)",
    }[protocol]
