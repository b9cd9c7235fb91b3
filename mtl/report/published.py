"""Published tables: what papers print, from ``tasks/published/*.yaml``.

A file holds figures and facts only: the source, the base, the split protocol, seeds and spread
where the source states them, a column per figure of a task and a row per method. What the source
does not state is null there, and a method that we have not is a named gap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtl.errors import RequestError, unknown
from mtl.tasks.metrics import METRICS
from mtl.tasks.yamls import PUBLISHED, catalog, check_keys, find_yaml, known_task, read_yaml

AVERAGE = "average"
"""What conclusions and verdicts call the printed average, whatever its heading is."""
UNITS = {"points": 100.0, "fractions": 1.0}
KINDS = ("adapter", "composition", "joint")


@dataclass(frozen=True)
class Column:
    """One figure of a task.

    Attributes:
        name: the heading.
        task: the task of ours that it is of.
        metric: our names of what it prints, several for their mean; empty where the source does not
            say, with what it says in ``metric_note``.
        split: which of the task's test splits it is of.
        runs: runs behind every cell at most, None where only the row says.
        rows: split → rows that were read, of the splits for which it is known.
    """

    name: str
    task: str
    metric: tuple[str, ...]
    metric_note: str = ""
    split: str = "test"
    runs: int | None = None
    rows: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class PublishedRow:
    """One method as the source prints it.

    Attributes:
        kind: ``adapter``, ``composition`` or ``joint``.
        method: our name of it, None for a ``gap``, which names what is missing.
        settings: settings of ours that tell rows of one method apart; ``bottleneck`` and
            ``reduction_factor`` say a width, whichever of the two a run was given.
        values, std: per column, None where nothing is printed.
        average: as printed, None where nothing is.
        params: the number of parameters as printed.
        base: where it is not the table's.
        remark: what does not fit together in the source.
        also: other figures that the source prints.
    """

    name: str
    kind: str
    method: str | None
    values: tuple[float | None, ...]
    average: float | None = None
    std: tuple[float | None, ...] = ()
    gap: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    params: str = ""
    base: str = ""
    remark: str = ""
    also: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Conclusion:
    """That row ``better`` is above row ``than`` in column ``on`` (or :data:`AVERAGE`)."""

    better: str
    than: str
    on: str

    def __str__(self) -> str:
        return f"{self.better} > {self.than} on {self.on}"


@dataclass(frozen=True)
class PublishedTable:
    """A table of a paper; see the module. ``runs`` counts the runs behind a cell by kind of row."""

    name: str
    title: str
    source: str
    base: str
    suite: str
    protocol: str | None
    unit: str
    decimals: int
    columns: tuple[Column, ...]
    rows: tuple[PublishedRow, ...]
    conclusions: tuple[Conclusion, ...] = ()
    url: str = ""
    protocol_note: str = ""
    seeds: str = "not stated"
    std: str = "not stated"
    runs: Mapping[str, int] = field(default_factory=dict)
    sources: Mapping[str, Any] = field(default_factory=dict)
    average: str = ""
    average_note: str = ""
    notes: str = ""

    @property
    def scale(self) -> float:
        """What a metric of ours, from 0 to 1, is multiplied by to stand beside a cell."""
        return UNITS[self.unit]

    def runs_of(self, row: PublishedRow, column: Column | None = None) -> int | None:
        """How many runs a cell is the mean of; of an average, those of its fewest column."""
        of_kind = self.runs.get(row.kind)
        limits = [column.runs] if column else [item.runs for item in self.columns]
        known = [limit for limit in (of_kind, *limits) if limit is not None]
        return min(known) if of_kind is not None else None

    def row(self, name: str) -> PublishedRow:
        """The row called ``name``."""
        return next(row for row in self.rows if row.name == name)

    def figure(self, row: PublishedRow, on: str) -> float | None:
        """What a row has in a column, or as its average."""
        if on == AVERAGE:
            return row.average
        return row.values[[column.name for column in self.columns].index(on)]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            **self.__dict__,
            "columns": [column.__dict__ for column in self.columns],
            "rows": [row.__dict__ for row in self.rows],
            "conclusions": [item.__dict__ for item in self.conclusions],
        }


def task_mean(columns: Sequence[Column], values: Sequence[float]) -> float:
    """The mean over tasks, as the papers' averages are: a task with two figures counts once.

    ``(1/T) Σ_t mean of the values whose column is of task t``
    """
    by_task: dict[str, list[float]] = {}
    for column, value in zip(columns, values, strict=True):
        by_task.setdefault(column.task, []).append(value)
    return sum(sum(found) / len(found) for found in by_task.values()) / len(by_task)


def list_published() -> list[str]:
    """Names of all published tables, sorted."""
    return sorted(catalog().published)


def load_published(name: str) -> PublishedTable:
    """Read a published table by name or by the path of its YAML file.

    Raises:
        RequestError: unknown table or key, a row that does not fit the columns, a task or metric
            that there is not, a conclusion of rows that there are not.
    """
    path = find_yaml(name, PUBLISHED, catalog().published)
    content = read_yaml(path)
    check_keys(content, _keys(PublishedTable), _REQUIRED, str(path))
    content.setdefault("name", path.stem)
    content["protocol"] = content.get("protocol")
    columns = tuple(_column(key, value, path) for key, value in _map(content, "columns", path))
    content["columns"] = columns
    rows = _list(content, "rows", path)
    content["rows"] = tuple(_row(row, len(columns), path) for row in rows)
    names = [row.name for row in content["rows"]]
    if twice := {name for name in names if names.count(name) > 1}:
        raise RequestError(f"{path}: several rows are called {', '.join(sorted(twice))}.")
    if content["unit"] not in UNITS:
        raise RequestError(f"{path}: {unknown('unit', str(content['unit']), UNITS)}")
    places = [column.name for column in columns] + [AVERAGE]
    content["conclusions"] = tuple(
        _conclusion(item, names, places, path) for item in _list(content, "conclusions", path)
    )
    content["runs"] = content.get("runs") or {}
    return PublishedTable(**content)


_REQUIRED = ("title", "source", "base", "suite", "unit", "decimals", "columns", "rows")


def _keys(of: type) -> list[str]:
    return list(of.__dataclass_fields__)  # type: ignore[attr-defined]


def _map(content: Mapping[str, Any], key: str, path: Path) -> list[tuple[str, Any]]:
    value = content[key]
    if not isinstance(value, Mapping):
        raise RequestError(f"{path}: {key} must map names to facts, it is {value!r}.")
    return [(str(name), facts) for name, facts in value.items()]


def _list(content: Mapping[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    value = content.get(key) or []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise RequestError(f"{path}: {key} must be a list of mappings.")
    return [dict(item) for item in value]


def _column(name: str, facts: Any, path: Path) -> Column:
    where = f"{path}, column {name!r}"
    if not isinstance(facts, dict):
        raise RequestError(f"{where} must hold keys and values, it is {facts!r}.")
    check_keys(facts, [key for key in _keys(Column) if key != "name"], ("task",), where)
    metric = facts.get("metric")
    names = () if metric is None else (metric,) if isinstance(metric, str) else tuple(metric)
    for one in names:
        if one not in METRICS:
            raise RequestError(f"{where}: {unknown('metric', str(one), METRICS)}")
    task = known_task(str(facts["task"]), path, catalog())
    return Column(name, **{**facts, "task": task, "metric": names})


def _row(facts: dict[str, Any], columns: int, path: Path) -> PublishedRow:
    where = f"{path}, row {facts.get('name')!r}"
    check_keys(facts, _keys(PublishedRow), ("name", "kind", "values"), where)
    if facts["kind"] not in KINDS:
        raise RequestError(f"{where}: {unknown('kind', str(facts['kind']), KINDS)}")
    if not facts.get("method") and not facts.get("gap"):
        raise RequestError(f"{where}: without a method of ours it needs a 'gap' that names it.")
    for key in ("values", "std"):
        found = facts.get(key, [])
        wanted = (columns,) if key == "values" else (columns, 0)
        if not isinstance(found, list) or len(found) not in wanted:
            raise RequestError(f"{where}: {key} must have {columns} figures, it has {found!r}.")
        if not all(item is None or isinstance(item, int | float) for item in found):
            raise RequestError(f"{where}: {key} must be numbers or null, they are {found!r}.")
    values = {key: tuple(facts.get(key, [])) for key in ("values", "std")}
    return PublishedRow(**{"method": None, **facts, **values})


def _conclusion(
    facts: dict[str, Any], rows: Sequence[str], places: Sequence[str], path: Path
) -> Conclusion:
    check_keys(facts, _keys(Conclusion), _keys(Conclusion), f"{path}, conclusions")
    for key, known in (("better", rows), ("than", rows), ("on", places)):
        if facts[key] not in known:
            raise RequestError(f"{path}, conclusions: {unknown(key, str(facts[key]), known)}")
    return Conclusion(**facts)


def render_published(table: PublishedTable) -> str:
    """The table as plain text, with what is known of how it came about."""
    from tabulate import tabulate

    def text(value: float | None) -> str:
        return "" if value is None else f"{value:.{table.decimals}f}"

    lines = [
        [
            row.name,
            row.method or f"(not here: {row.gap})",
            *([row.params] if any(item.params for item in table.rows) else []),
            *map(text, row.values),
            *([text(row.average)] if table.average else []),
        ]
        for row in table.rows
    ]
    head = [
        "row",
        "here",
        *(["parameters"] if any(row.params for row in table.rows) else []),
        *(column.name for column in table.columns),
        *([table.average] if table.average else []),
    ]
    facts = {
        "source": table.source + (f" ({table.url})" if table.url else ""),
        "base": table.base,
        "protocol": "; ".join(filter(None, (table.protocol, table.protocol_note))),
        "seeds": table.seeds,
        "std": table.std,
        "metrics": ", ".join(
            f"{c.name}: {c.task} {' and '.join(c.metric) or c.metric_note}"
            + (f" on {c.split}" if c.split != "test" else "")
            for c in table.columns
        ),
        table.average or "": table.average_note,
        "notes": table.notes,
    }
    said = "\n".join(f"{key}: {value}" for key, value in facts.items() if value)
    remarks = "".join(f"\n{row.name}: {row.remark}" for row in table.rows if row.remark)
    body = tabulate(lines, headers=head, disable_numparse=True)
    return f"{table.title}, in {table.unit}\n\n{body}\n\n{said}{remarks}"
