"""The file of a study: its keys, read and checked as far as the file alone can be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtl.errors import RequestError, unknown
from mtl.files import safe_part
from mtl.tasks.recipes import OF_THE_RUN
from mtl.tasks.yamls import STUDY, catalog, check_keys, find_yaml, is_file_name, read_yaml

STAGES = {"train": "adapter", "compose": "composition", "joint": "joint"}
"""Sections of the file → kinds of runs."""

_SHARED = ("model", "recipe", "protocol", "seeds", "seeds_of", "shots", "shot_draws", "set")
_TOP = (
    *("name", "notes", "suite", "tasks", *_SHARED, *STAGES),
    *("threads", "against", "gaps", "search"),
)
_ITEM = ("method", "row", *_SHARED)
_KEYS = {
    "train": (*_ITEM, "tasks"),
    "compose": (
        *(*_ITEM, "targets", "sources", "source_method", "source_seeds", "source_set", "own"),
        *("trials", "budget", "min_gain", "control"),
    ),
    "joint": (*_ITEM, "tasks"),
}
SAME = "same"
"""Source seeds: each run's own."""
EACH = "each"
"""Task of a search: every task on its own."""
_SEARCH = ("over", "trials", "seed", "by", "task", "prune")
_FORMS = "KEY: [A, B, …], KEY: {range: [LOW, HIGH]} or KEY: {log: [LOW, HIGH]}"


@dataclass(frozen=True)
class Item:
    """One entry of a section: methods × settings × tasks × shots × seeds.

    Attributes:
        where: file and place, for messages.
        kind: ``adapter``, ``composition`` or ``joint``.
        tasks: names; none for all of the study.
        settings: setting → its values, of which every combination is meant.
        seeds_of: task → its seeds, where they are others.
        rows: method → the row of the published table.
        sources: of a composition, as ``--sources`` takes them; likewise what follows.
    """

    where: str
    kind: str
    methods: tuple[str, ...]
    tasks: tuple[str, ...]
    models: tuple[str | None, ...]
    recipe: str | None
    protocol: str | None
    seeds: tuple[int, ...]
    seeds_of: Mapping[str, tuple[int, ...]]
    shots: tuple[int, ...]
    shot_draws: tuple[int, ...]
    settings: Mapping[str, tuple[Any, ...]]
    rows: Mapping[str, str]
    sources: tuple[str, ...] = ("all",)
    source_method: str = "pfeiffer"
    source_seeds: str | None = None
    source_set: Mapping[str, Any] = field(default_factory=dict)
    own: bool = True
    trials: float | None = None
    budget: int | None = None
    min_gain: float | None = None
    control: str | None = None


@dataclass(frozen=True)
class Search:
    """What is searched for before runs are planned.

    Attributes:
        where: file and place, for messages.
        over: settings and their values, as ``mtl.search --over`` takes them.
        trials: of every method, beside its settings as they are.
        seeds: of every trial.
        task: on which; None: on each.
        prune: how trials that fall behind are given up.
    """

    where: str
    over: tuple[str, ...]
    trials: int
    seeds: tuple[int, ...]
    task: str | None
    prune: str


@dataclass(frozen=True)
class Study:
    """A study as its file says it.

    Attributes:
        suites: names of suites; empty where tasks alone are named.
        tasks: names of tasks (files: absolute); empty for all of the suites.
        threads: of a CPU, for each run; None: as the environment says, else one.
        against: the published table that it fills.
        gaps: row of that table → why it cannot be run.
        search: what is to be searched for first, or None.
    """

    name: str
    path: Path
    suites: tuple[str, ...]
    tasks: tuple[str, ...]
    items: tuple[Item, ...]
    threads: int | None = None
    against: str | None = None
    gaps: Mapping[str, str] = field(default_factory=dict)
    search: Search | None = None
    notes: str = ""


def list_studies() -> list[str]:
    """Names of the studies that are there, sorted."""
    return sorted(catalog().studies)


def read_study(name: str) -> Study:
    """Read a study by its name or by the path of its YAML file.

    Raises:
        RequestError: no such study, an unknown key, a value of another sort; says where.
    """
    path = find_yaml(name, STUDY, catalog().studies).resolve()
    content = read_yaml(path)
    where = path.name
    check_keys(content, _TOP, (), where)
    if not any(content.get(stage) for stage in STAGES):
        raise RequestError(f"{where} names no runs: give it train, compose or joint.")
    if content.get("suite") is None and content.get("tasks") is None:
        raise RequestError(f"{where} says neither suite nor tasks.")
    items = [
        _item(entry, stage, f"{where}, {stage}[{number}]", content, path)
        for stage in STAGES
        for number, entry in enumerate(_entries(content.get(stage), f"{where}, {stage}"))
    ]
    threads = content.get("threads")
    if threads is not None:
        (threads,) = _numbers([threads], f"{where}, threads", least=1)
    return Study(
        name=safe_part(str(content.get("name") or path.stem), f"{where}: the name"),
        path=path,
        suites=tuple(_file(name, path) for name in _texts(content.get("suite"), f"{where}, suite")),
        tasks=tuple(_file(name, path) for name in _texts(content.get("tasks"), f"{where}, tasks")),
        items=tuple(items),
        threads=threads,
        against=None if content.get("against") is None else str(content["against"]),
        gaps={key: str(why) for key, why in _mapping(content, "gaps", where).items()},
        search=_search(content, path),
        notes=str(content.get("notes") or "").strip(),
    )


def _item(entry: Any, stage: str, where: str, top: Mapping[str, Any], path: Path) -> Item:
    if not isinstance(entry, dict):
        raise RequestError(f"{where} must hold keys and values, such as method, not {entry!r}.")
    check_keys(entry, _KEYS[stage], ("method",), where)
    methods = _texts(entry["method"], f"{where}, method")
    _once(methods, f"{where}, method")
    both = {
        **{key: top.get(key) for key in _SHARED},
        **{k: v for k, v in entry.items() if v is not None},
    }
    seeds_of = entry.get("seeds_of") if "seeds" in entry else both["seeds_of"]
    draws = _numbers(_list(both["shot_draws"], [0]), f"{where}, shot_draws")
    shots = _numbers(_list(both["shots"], [0]), f"{where}, shots")
    if stage == "joint" and (any(shots) or any(draws)):
        raise RequestError(f"{where}: a joint run has no shots; give it `shots: 0`.")
    settings = {**_mapping(top, "set", path.name), **_mapping(entry, "set", where)}
    rows = entry.get("row") or {}
    if isinstance(rows, str):
        rows = dict.fromkeys(methods, rows)
    if not isinstance(rows, dict) or not {*rows} <= {*methods}:
        raise RequestError(f"{where}, row must be text, or say it by methods of this entry.")
    found = Item(
        where=where,
        kind=STAGES[stage],
        methods=methods,
        tasks=tuple(
            _file(name, path)
            for name in _texts(entry.get("tasks") or entry.get("targets"), f"{where}, tasks")
        ),
        models=_texts(both["model"], f"{where}, model") or (None,),
        recipe=_file(str(both["recipe"]), path) if both["recipe"] else None,
        protocol=str(both["protocol"]) if both["protocol"] else None,
        seeds=_numbers(_list(both["seeds"], [0]), f"{where}, seeds"),
        seeds_of={
            str(task): _numbers(_list(seeds, []), f"{where}, seeds_of.{task}")
            for task, seeds in _checked(seeds_of, f"{where}, seeds_of").items()
        },
        shots=shots,
        shot_draws=draws,
        settings={key: _values(value, f"{where}, set.{key}") for key, value in settings.items()},
        rows={str(key): str(value) for key, value in rows.items()},
    )
    return _with_sources(found, entry) if stage == "compose" else found


def _with_sources(item: Item, entry: Mapping[str, Any]) -> Item:
    from dataclasses import replace

    where = item.where
    seeds = entry.get("source_seeds")
    if seeds is not None and seeds != SAME:
        (seeds,) = _numbers([seeds], f"{where}, source_seeds ('{SAME}' or a number)")
    own = entry.get("own", True)
    if not isinstance(own, bool):
        raise RequestError(f"{where}, own must be true or false, not {own!r}.")
    numbers = {}
    for key in ("trials", "budget", "min_gain"):
        value = entry.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise RequestError(f"{where}, {key} must be a number, not {value!r}.")
        numbers[key] = value
    return replace(
        item,
        sources=_texts(entry.get("sources"), f"{where}, sources") or ("all",),
        source_method=str(entry.get("source_method") or "pfeiffer"),
        source_seeds=OF_THE_RUN if seeds == SAME else None if seeds is None else str(seeds),
        source_set=_mapping(entry, "source_set", where),
        own=own,
        trials=numbers["trials"],
        budget=None if numbers["budget"] is None else int(numbers["budget"]),
        min_gain=numbers["min_gain"],
        control=None if entry.get("control") is None else str(entry["control"]),
    )


def _search(content: Mapping[str, Any], path: Path) -> Search | None:
    from mtl.search.searching import PRUNERS, SEED, TRIALS

    where = f"{path.name}, search"
    said = _mapping(content, "search", path.name)
    if content.get("search") is None:
        return None
    check_keys(said, _SEARCH, ("over", "task"), where)
    if said.get("by") not in (None, "dev"):
        raise RequestError(
            f"{where}, by: a search goes by dev, not by {_short(said['by'])}; test rows choose "
            "nothing."
        )
    prune = str(said.get("prune") or PRUNERS[0])
    if prune not in PRUNERS:
        raise RequestError(f"{where}, prune: {unknown('pruner', prune, PRUNERS)}")
    over = _mapping(said, "over", where)
    if not over:
        raise RequestError(f"{where}, over names no setting: {_FORMS}.")
    (task,) = _texts([said["task"]], f"{where}, task")
    return Search(
        where=where,
        over=tuple(_range(key, value, f"{where}, over.{key}") for key, value in over.items()),
        trials=_numbers(_list(said.get("trials"), [TRIALS]), f"{where}, trials", least=1)[0],
        seeds=_numbers(_list(said.get("seed"), [SEED]), f"{where}, seed"),
        task=None if task == EACH else _file(task, path),
        prune=prune,
    )


def _range(key: str, value: Any, where: str) -> str:
    """What may be chosen of a setting, as ``--over`` takes it."""
    if isinstance(value, list) and len(value) > 1:
        found = [str(item) for item in _values(value, where)]
        if not any("|" in item or ".." in item for item in found):
            return f"{key}={'|'.join(found)}"
    elif isinstance(value, dict) and len(value) == 1:
        ((form, ends),) = value.items()
        if form in {"log", "range"} and isinstance(ends, list) and len(ends) == 2:
            low, high = _values(ends, where)
            return f"{key}={low}..{high}{':log' if form == 'log' else ''}"
    raise RequestError(f"{where} must be one of {_FORMS}, with two values or more.")


def _entries(value: Any, where: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise RequestError(f"{where} must be a list: `- {{method: …}}`.")
    return value


def _list(value: Any, default: list[Any]) -> list[Any]:
    return default if value is None else value if isinstance(value, list) else [value]


def _numbers(values: Iterable[Any], where: str, least: int = 0) -> tuple[int, ...]:
    found = []
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise RequestError(f"{where} must hold whole numbers from {least} on, not {value!r}.")
        found.append(value)
    _once(found, where)
    if not found:
        raise RequestError(f"{where} is empty.")
    return tuple(found)


def _once(values: Iterable[Any], where: str) -> None:
    values = list(values)
    twice = [str(value) for value in dict.fromkeys(values) if values.count(value) > 1]
    if twice:
        raise RequestError(f"{where} names {', '.join(twice)} twice.")


def _texts(value: Any, where: str) -> tuple[str, ...]:
    found = _list(value, [])
    for item in found:
        if isinstance(item, bool) or not isinstance(item, str | int | float):
            raise RequestError(f"{where} must hold names, not {_short(item)}.")
    return tuple(str(item) for item in found)


def _values(value: Any, where: str) -> tuple[Any, ...]:
    found = _list(value, [])
    for item in found:
        if item is None or isinstance(item, list | dict):
            raise RequestError(f"{where} must be a value, or a list of values to try.")
    if not found:
        raise RequestError(f"{where} is empty.")
    _once([repr(item) for item in found], where)
    return tuple(found)


def _mapping(content: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    return _checked(content.get(key), f"{where}, {key}")


def _checked(value: Any, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RequestError(f"{where} must hold keys and values, it is {_short(value)}.")
    return {str(key): item for key, item in value.items()}


def _short(value: Any) -> str:
    # an alias of YAML may hold itself
    return repr(value) if isinstance(value, str | int | float) else f"a {type(value).__name__}"


def _file(name: str, path: Path) -> str:
    """A file that the study names, as seen from the study; other names as they are."""
    return str((path.parent / name).resolve()) if is_file_name(name) else name
