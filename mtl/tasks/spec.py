"""What a task is: a :class:`TaskSpec`, made from the keys of a YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from string import Formatter
from typing import Any

from mtl.errors import RequestError, did_you_mean, unknown
from mtl.files import path_name, safe_part
from mtl.tasks.dialect import KEYS, Dialect
from mtl.tasks.kinds import KINDS
from mtl.tasks.label_columns import LabelForm
from mtl.tasks.metrics import METRICS
from mtl.tasks.yamls import SUFFIXES, check_keys

SOURCES = {"repo": ("repo", "config", "revision"), "files": ("files", *KEYS), "demo": ("demo",)}
"""Kinds of data source by their first key, with the keys each may have."""

RESERVED = {"_joint": "entries of joint runs are stored under it"}
"""Names that neither a suite nor a task may have, and why."""

TRUNCATE = ("longest", "first")


@dataclass(frozen=True)
class TaskSpec:
    """One task, as its YAML file says it.

    Attributes:
        id: ``suite/name``.
        data: ``{repo, config?, revision?}``, ``{files: {split: file}}`` with the keys of
            :class:`mtl.tasks.dialect.Dialect`, or ``{demo: name}``.
        kind: what is predicted and how it is scored: see :data:`mtl.tasks.kinds.KINDS`.
        inputs: one or two templates over the columns (``"{word}: {sentence1}"``); two are encoded
            as a pair. Of a multiple choice, the context and then one template per choice. Of a
            span extraction, the question and the column of the context.
        prepare: name of a registered function that reshapes the rows before the templates.
        labels: names of the classes in the order of the model's outputs; empty for regression and
            spans. Of a multi-label task empty means: those of the data, over all splits, sorted.
        metrics: the first is the headline.
        test: name → split of the source, the first being the main one; None: the protocol's.
        dev: split of the source that protocol ``scalearn`` selects on, in place of a held-out part
            of the training rows; None for that part.
        max_length: tokens per encoding at most, special tokens included.
        truncate: which text of a pair is cut when it is longer: ``longest`` or ``first``.
        pair: how two texts become one where the tokenizer has no format for pairs (those of most
            decoders), or in its place: ``"{first}\\n{second}"``; empty for the tokenizer's own.
        label_column: the column of the label.
        label_columns: instead of it, one column of 0 and 1 per label, in the order of ``labels``;
            without these they are the labels' names.
        label_vectors: whether the label column holds lists of 0 and 1 in the order of ``labels``.
        label_separator: what stands between the labels of a cell (``a;b``); None where a set of
            labels is a list of names.
        stratify: whether protocols that hold out a dev part do so class by class.
        group_by: a column, such as a user or a document: a hold-out keeps rows with one value of it
            on one side; None for a hold-out row by row.
        origin: the file it came from; not part of the task.

    Raises:
        RequestError: something does not fit together; names the file (or the id) and the key.
    """

    id: str
    data: Mapping[str, Any]
    kind: str
    inputs: tuple[str, ...]
    metrics: tuple[str, ...]
    prepare: str | None = None
    labels: tuple[str, ...] = ()
    test: Mapping[str, str] | None = None
    dev: str | None = None
    max_length: int = 128
    truncate: str = "longest"
    pair: str = ""
    label_column: str = "label"
    stratify: bool = True
    label_columns: tuple[str, ...] = ()
    label_vectors: bool = False
    label_separator: str | None = None
    group_by: str | None = None
    origin: Path | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        # Lists are welcome, tuples are kept.
        for name in ("inputs", "metrics", "labels", "label_columns"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        parts = self.id.split("/")
        if len(parts) != 2:
            raise self._wrong("id", f"must be 'suite/name', it is {self.id!r}")
        for part, what in zip(parts, ("suite", "name"), strict=True):
            safe_part(part, f"{self.where}: the {what} in id")
            if part.lower() in RESERVED or part.endswith(SUFFIXES):
                why = RESERVED.get(part.lower(), "names with this ending are names of files")
                raise self._wrong("id", f"is {self.id!r}, but {part!r} is taken: {why}")
        self._check_data()
        if self.kind not in KINDS:
            raise self._wrong("kind", str(unknown("kind", self.kind, KINDS)))
        for template in self.inputs:
            self._check_template(template)
        self._check_label_form()
        if not self.metrics:
            raise self._wrong("metrics", "must name at least one; the first is the headline")
        for metric in self.metrics:
            if metric not in METRICS:
                raise self._wrong("metrics", str(unknown("metric", metric, METRICS)))
            fault = METRICS.get(metric).unfit(self.kind, len(self.labels))
            if fault:
                raise self._wrong("metrics", fault)
        if len({name.strip() for name in self.labels}) != len(self.labels):
            raise self._wrong("labels", "holds a name twice")
        fault = KINDS.get(self.kind).unfit(self)
        if fault:
            raise self._wrong("labels", fault)
        fault = KINDS.get(self.kind).unfit_inputs(self)
        if fault:
            raise self._wrong("inputs", fault)
        if self.truncate not in TRUNCATE:
            raise self._wrong("truncate", str(unknown("truncate", self.truncate, TRUNCATE)))
        if self.pair:
            try:
                pair_parts(self.pair)
            except ValueError as error:
                raise self._wrong("pair", str(error)) from error
        if self.group_by is not None and self.kind == "candidates":
            raise self._wrong("group_by", "is for other kinds: candidates go by their query")
        if self.group_by is not None and self.group_by in self.gold_columns:
            raise self._wrong("group_by", f"is {self.group_by!r}, the column of the label")
        if self.max_length < 8:
            raise self._wrong("max_length", f"must be at least 8, it is {self.max_length}")
        if self.test is not None and not self.test:
            raise self._wrong("test", "must name at least one split, or be null")

    @property
    def choices(self) -> int:
        """Encodings per row: one, except for multiple choice."""
        return KINDS.get(self.kind).choices(self)

    @property
    def suite(self) -> str:
        """The first part of the id."""
        return self.id.split("/")[0]

    @property
    def name(self) -> str:
        """The second part of the id."""
        return self.id.split("/")[1]

    @property
    def headline(self) -> str:
        """The first metric."""
        return self.metrics[0]

    @property
    def num_outputs(self) -> int:
        """C: how many logits a head of this task has."""
        return KINDS.get(self.kind).num_outputs(self)

    @property
    def table_columns(self) -> tuple[str, ...]:
        """The columns that decoding and metrics need of every row, beside texts and label."""
        wanted = list(KINDS.get(self.kind).needs)
        for metric in self.metrics:
            wanted += METRICS.get(metric).needs.get(self.kind, ())
        return tuple(dict.fromkeys(wanted))

    @property
    def label_form(self) -> LabelForm:
        """How a row of the data says its labels."""
        return LabelForm(self.label_columns, self.label_vectors, self.label_separator or "")

    @property
    def gold_columns(self) -> tuple[str, ...]:
        """The columns that the label is read from."""
        return self.label_columns or (self.label_column,)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns that the templates use, in order of first use."""
        names = [name for text in self.inputs for _, name in template_parts(text) if name]
        return tuple(dict.fromkeys(names))

    @property
    def where(self) -> str:
        """File or id, for messages."""
        return str(self.origin) if self.origin else f"task {self.id!r}"

    def to_dict(self) -> dict[str, Any]:
        """The keys of the YAML file as JSON values; ``TaskSpec.from_dict`` takes them back."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        del values["origin"]
        for item in fields(self):
            # Fields that came later: a task that does not use them hashes as it always did.
            if item.name in _LATER and values[item.name] == item.default:
                del values[item.name]
        return {
            key: list(value)
            if isinstance(value, tuple)
            else dict(value)
            if isinstance(value, Mapping)
            else value
            for key, value in values.items()
        }

    def portable(self) -> dict[str, Any]:
        """As :meth:`to_dict`, with names of files in place of paths: what is stored and travels."""
        values = self.to_dict()
        if "files" in self.data:
            files = {split: path_name(path) for split, path in self.data["files"].items()}
            values["data"] = {"files": files}
        return values

    @staticmethod
    def from_dict(content: Mapping[str, Any], origin: Path | None = None) -> TaskSpec:
        """Build a spec from the keys of a YAML file.

        Raises:
            RequestError: unknown, missing or ill-typed keys, with file and key.
        """
        where = str(origin) if origin else f"task {content.get('id')!r}"
        known = [item.name for item in fields(TaskSpec) if item.name != "origin"]
        check_keys(content, known, ("id", "data", "kind", "inputs", "metrics"), where)
        values = {key: value for key, value in content.items() if value is not None}
        for key, expected in _TYPES.items():
            value = values.get(key)
            # bool is an int to Python, but "max_length: true" is a slip.
            if value is not None and (
                not isinstance(value, expected) or (expected is int and isinstance(value, bool))
            ):
                raise RequestError(
                    f"{where}: {key} must be a {_SPOKEN[expected]}, it is {value!r}."
                )
        for key in ("inputs", "metrics", "label_columns"):
            bad = [item for item in values.get(key, ()) if not isinstance(item, str)]
            if bad:
                raise RequestError(f"{where}: {key} must hold text, not {bad[0]!r}; quote it.")
        # Numbers and true/false are good names of classes; they are kept as they are written.
        values["labels"] = tuple(
            str(item).lower() if isinstance(item, bool) else str(item)
            for item in values.get("labels", ())
        )
        return TaskSpec(**values, origin=origin)

    def _wrong(self, key: str, why: str) -> RequestError:
        return RequestError(f"{self.where}: {key} {why.rstrip('.')}.")

    def _check_data(self) -> None:
        found = [key for key in SOURCES if key in self.data]
        if len(found) != 1:
            raise self._wrong("data", "must have exactly one of the keys repo, files, demo")
        for key in self.data:
            if key not in SOURCES[found[0]]:
                guess = did_you_mean(str(key), SOURCES[found[0]])
                raise self._wrong("data", f"has an unknown key {key!r}.{guess}")
        value = self.data[found[0]]
        if found[0] == "files":
            good = isinstance(value, Mapping) and all(
                isinstance(file, str) for file in value.values()
            )
            if not good or not value:
                raise self._wrong("data", "must map splits to files: {files: {train: a.csv, …}}")
            try:
                Dialect.from_data(self.data)
            except ValueError as error:
                raise self._wrong("data", str(error)) from error
        elif not isinstance(value, str) or not value:
            raise self._wrong("data", f"has {found[0]}: {value!r}, which is no name")

    def _check_label_form(self) -> None:
        """What does not fit together of label_columns, label_vectors and label_separator."""
        given = [
            name
            for name in ("label_columns", "label_vectors", "label_separator")
            if getattr(self, name)
        ]
        if not given:
            return
        if len(given) > 1:
            raise self._wrong(given[1], f"cannot stand beside {given[0]}: one of them reads a row")
        form = given[0]
        kinds = ("multilabel",) if form == "label_separator" else ("multilabel", "classification")
        if self.kind not in kinds:
            raise self._wrong(form, f"is for kind {' and '.join(kinds)}, not for {self.kind}")
        if form == "label_separator" and not str(self.label_separator).strip():
            raise self._wrong(form, f"is {self.label_separator!r}; a space ends no name")
        if form == "label_vectors" and not self.labels:
            raise self._wrong("labels", "must name the places of the vectors, in their order")
        if form == "label_columns":
            if len({*self.label_columns}) != len(self.label_columns) or len(self.label_columns) < 2:
                raise self._wrong(form, "must name two columns or more, each once")
            if not self.labels:
                object.__setattr__(self, "labels", self.label_columns)
            if len(self.labels) != len(self.label_columns):
                raise self._wrong(
                    "labels",
                    f"has {len(self.labels)} names for {len(self.label_columns)} label_columns",
                )

    def _check_template(self, template: str) -> None:
        try:
            parts = template_parts(template)
        except ValueError as error:
            raise self._wrong("inputs", f"holds {template!r}: {error}") from error
        if not any(name for _, name in parts):
            raise self._wrong("inputs", f"holds {template!r}, which names no {{column}}")


_TYPES: dict[str, type] = {
    "id": str,
    "data": dict,
    "kind": str,
    "inputs": list,
    "prepare": str,
    "labels": list,
    "metrics": list,
    "test": dict,
    "dev": str,
    "max_length": int,
    "truncate": str,
    "pair": str,
    "label_column": str,
    "stratify": bool,
    "label_columns": list,
    "label_vectors": bool,
    "label_separator": str,
    "group_by": str,
}
_LATER = (
    *("dev", "truncate", "label_columns", "label_vectors", "label_separator", "group_by"),
    "pair",
)
_SPOKEN: dict[type, str] = {
    str: "text",
    dict: "mapping",
    list: "list",
    int: "whole number",
    bool: "true or false",
}


def template_parts(template: str) -> list[tuple[str, str | None]]:
    """Split a template into (literal text, column after it or None).

    Raises:
        ValueError: unbalanced braces, an empty name, or a format such as ``{x:>3}``.
    """
    parts = []
    for literal, name, form, conversion in Formatter().parse(template):
        if form or conversion:
            raise ValueError(f"'{{{name}}}' must be a plain column name, without ':' and '!'")
        if name is not None and not name.strip():
            raise ValueError("'{}' names no column")
        parts.append((literal, name))
    return parts


def pair_parts(template: str) -> tuple[str, str, str]:
    """What a template for pairs puts before, between and behind the two texts.

    Raises:
        ValueError: it does not name ``{first}`` and then ``{second}``, or joins them directly.
    """
    parts = template_parts(template)
    names = [name for _, name in parts if name is not None]
    if names != ["first", "second"] or not parts[1][0]:
        raise ValueError(
            f"is {template!r}, which must name {{first}} and then {{second}} with something "
            "between them, such as '{first} | {second}'"
        )
    return parts[0][0], parts[1][0], parts[2][0] if len(parts) > 2 else ""
