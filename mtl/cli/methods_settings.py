"""``mtl.methods settings``: what every method trains at under a recipe, and who says so."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from mtl.errors import RequestError, unknown

if TYPE_CHECKING:
    from mtl.runs.settings import Resolved, Trainable
    from mtl.tasks import Recipe

DEFAULT = "default"
LEGEND = "* of the method's own paper, ° the default of every run, the rest the recipe's"
PAPER_FIRST = ("scalearn", "reference")
INTRODUCTION = """\
# Settings

What every method trains at under every recipe, and who says so. This file is what
`python -m mtl.methods settings --markdown` prints; `--json` has every setting with its origin,
and `--suite`, `--recipe`, `--method` and `--task` narrow it. A command takes its suite's recipe;
`--recipe NAME` another one, `--recipe none` the settings of the method's own paper; flags and
`--set` go over all of them. A recipe that does not name a method does not train it."""


@dataclass(frozen=True)
class Row:
    """One method under one recipe.

    Attributes:
        plain: its settings on a task that the recipe makes no exception for.
        tasks: task → (setting → value) that differ from ``plain``.
        suites: suite → task → the same, where the recipe says otherwise in that suite.
        few_shot: setting → value that differ in runs with ``shots``.
    """

    method: str
    source: str
    plain: Resolved
    tasks: Mapping[str, Mapping[str, Any]]
    suites: Mapping[str, Mapping[str, Mapping[str, Any]]]
    few_shot: Mapping[str, Any]


def settings(options: Namespace) -> int:
    """Print the settings of methods under recipes: a table each, Markdown, or JSON."""
    from mtl.tasks import list_suites, load_recipe, load_suite

    suite = load_suite(options.suite) if options.suite else None
    methods = _methods(options.method)
    if options.recipe:
        names = options.recipe
    elif suite is not None:
        names = [suite.recipe]
    else:
        names = _all_recipes()
    tables = []
    for name in names:
        recipe = load_recipe(name, suite.name if suite else "")
        used = [one for one in list_suites() if load_suite(one).recipe == name]
        tasks = options.task or (suite.tasks if suite else None)
        tables.append((recipe, used, list(_rows(recipe, name, methods, tasks, suite is None))))
    if not any(rows for _, _, rows in tables):
        others = _unnamed([], methods)
        raise RequestError(
            f"{_recipes(names)} no settings for {', '.join(methods)}. There are some in "
            + "; ".join(f"--recipe {' '.join(found)}" for found in others.values())
            + "."
        )
    if options.json:
        print(json.dumps({"recipes": [_json(*table, methods) for table in tables]}))
        return 0
    tables = [table for table in tables if table[2]]
    style = "github" if options.markdown else "simple"
    texts = [_text(*table, style) for table in tables]
    if len(tables) > 1:
        texts.insert(0, _overview([recipe for recipe, _, _ in tables], methods, style))
    if options.markdown:
        texts.insert(0, INTRODUCTION)
    print("\n\n".join(texts))
    return 0


def _recipes(names: Sequence[str]) -> str:
    listed = ", ".join(repr(name) for name in names)
    return f"Recipe {listed} has" if len(names) == 1 else f"Recipes {listed} have"


def _methods(names: Sequence[str] | None) -> dict[str, Trainable]:
    from mtl.compose import COMPOSITIONS
    from mtl.joint import JOINT
    from mtl.methods import METHODS

    known: dict[str, Any] = {
        name: registry
        for registry in (METHODS, COMPOSITIONS, JOINT)
        for name in registry.names()  # type: ignore[attr-defined]
    }
    for name in names or ():
        if name not in known:
            raise unknown("method", name, known)
    if names:
        return {name: known[name].get(name) for name in names}
    return {**METHODS.usable(), **COMPOSITIONS.usable(), **JOINT.usable()}


def _all_recipes() -> list[str]:
    from mtl.tasks import list_recipes
    from mtl.tasks.recipes import NO_RECIPE

    names = list_recipes()
    first = [name for name in PAPER_FIRST if name in names]
    return [*first, *(name for name in names if name not in first), NO_RECIPE]


def _rows(
    recipe: Recipe,
    name: str,
    methods: Mapping[str, Trainable],
    tasks: Sequence[str] | None,
    all_suites: bool,
) -> Iterator[Row]:
    from mtl.joint import JOINT
    from mtl.runs.settings import Overrides, trace_settings
    from mtl.tasks import list_suites, load_recipe, load_task

    def of(one: Recipe, method: Trainable, task: str, *, few: bool = False) -> Resolved:
        layers = one.layers(method.name, task, few_shot=few)
        return trace_settings(method, layers, Overrides({}))

    ids = [load_task(task).id for task in tasks] if tasks else recipe.task_ids()
    inside = {suite: load_recipe(name, suite) for suite in list_suites() if all_suites}
    inside = {suite: one for suite, one in inside.items() if one.parts != recipe.parts}
    for method in methods.values():
        if not recipe.names(method.name):
            continue
        plain = of(recipe, method, "")
        here = {task: of(recipe, method, task) for task in ids}
        suites = {
            suite: {
                task: _changes(here.get(task, plain), of(one, method, task))
                for task in one.task_ids()
            }
            for suite, one in inside.items()
        }
        yield Row(
            method.name,
            method.training.source,
            plain,
            {task: changed for task, found in here.items() if (changed := _changes(plain, found))},
            {
                suite: {task: changed for task, changed in by_task.items() if changed}
                for suite, by_task in suites.items()
                if any(by_task.values())
            },
            {} if method.name in JOINT else _changes(plain, of(recipe, method, "", few=True)),
        )


def _changes(one: Resolved, other: Resolved) -> dict[str, Any]:
    """The settings of ``other`` that ``one`` has otherwise."""
    return {
        key: value
        for mine, theirs in ((one.run, other.run), (one.method, other.method))
        for key, value in asdict(theirs).items()
        if getattr(mine, key) != value
    }


def _json(
    recipe: Recipe, suites: list[str], rows: list[Row], methods: Mapping[str, Trainable]
) -> dict[str, Any]:
    def traced(found: Resolved, part: str) -> dict[str, Any]:
        values = asdict(getattr(found, part))
        return {
            key: {"value": value, "from": found.origins.get(f"{part}.{key}", DEFAULT)}
            for key, value in values.items()
        }

    return {
        "recipe": recipe.name,
        "suites": suites,
        "methods": [
            {
                "method": row.method,
                "paper": row.source,
                "run": traced(row.plain, "run"),
                "settings": traced(row.plain, "method"),
                "tasks": row.tasks,
                "suites": row.suites,
                "few_shot": row.few_shot,
            }
            for row in rows
        ],
        "unnamed": _unnamed(rows, methods),
    }


def _unnamed(rows: Sequence[Row], methods: Mapping[str, Trainable]) -> dict[str, list[str]]:
    from mtl.tasks.recipes import NO_RECIPE, recipes_naming

    named = {row.method for row in rows}
    return {name: [*recipes_naming(name), NO_RECIPE] for name in methods if name not in named}


def _text(recipe: Recipe, suites: Sequence[str], rows: Sequence[Row], style: str) -> str:
    from tabulate import tabulate

    parts = [f"## {recipe.name}" if style == "github" else f"recipe {recipe.name}"]
    about = [f"Of the suites {', '.join(suites)}." if suites else ""]
    about.append(f"Published for {recipe.model}." if recipe.model else "")
    parts.append(" ".join(text for text in about if text))
    if recipe.notes:
        parts.append(recipe.notes)
    parts = [part for part in parts if part]
    table = [_cells(row, recipe.name) for row in rows]
    parts.append(tabulate(table, headers="keys", tablefmt=style, disable_numparse=True))
    parts.append(f"({LEGEND}.)")
    exceptions = _exceptions(rows)
    if exceptions:
        head = ["where", "methods", "settings"]
        parts.append(tabulate(exceptions, headers=head, tablefmt=style, disable_numparse=True))
    return "\n\n".join(parts)


def _cells(row: Row, recipe: str) -> dict[str, str]:
    from mtl.runs.settings import OWN

    run = row.plain.run

    def mark(key: str) -> str:
        origin = row.plain.origins.get(key, DEFAULT)
        return {OWN: "*", DEFAULT: "°"}.get(origin, "")

    def cell(key: str, text: str = "") -> str:
        value = getattr(run, key)
        return (text or (value if isinstance(value, str) else f"{value:g}")) + mark(f"run.{key}")

    own = [
        f"{item.name}={getattr(row.plain.method, item.name)}{mark(f'method.{item.name}')}"
        for item in fields(row.plain.method)
        if f"method.{item.name}" in row.plain.origins
    ]
    steps, every = run.max_steps, run.eval_every
    return {
        "method": row.method,
        "lr": cell("lr"),
        "length": cell("max_steps", f"{steps:,} steps")
        if steps
        else cell("epochs", f"{run.epochs} epochs"),
        "batch": cell("batch_size"),
        "warm-up": cell("warmup"),
        "decay": cell("weight_decay"),
        "clip": cell("clip"),
        "AdamW": cell("adam_form", run.adam_form),
        "selects": cell("select", run.select),
        "patience": cell("patience"),
        "evaluates": cell("eval_every", f"every {every:,} steps" if every else "every epoch"),
        "head": cell("head", run.head),
        "its own": " ".join(own),
        **({"from": row.source} if recipe == "none" else {}),
    }


def _exceptions(rows: Sequence[Row]) -> list[list[str]]:
    """Where, which methods, what; equal ones together."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        places = {f"{task}": changed for task, changed in row.tasks.items()}
        for suite, by_task in row.suites.items():
            places |= {f"{task} in suite {suite}": changed for task, changed in by_task.items()}
        if row.few_shot:
            places["few shots (--shots)"] = row.few_shot
        for place, changed in places.items():
            text = " ".join(f"{key}={value}" for key, value in changed.items())
            found.setdefault((place, text), []).append(row.method)
    together: dict[tuple[str, str], list[str]] = {}
    for (place, text), methods in found.items():
        together.setdefault((", ".join(methods), text), []).append(place)
    return [[", ".join(places), names, text] for (names, text), places in together.items()]


def _overview(recipes: Sequence[Recipe], methods: Mapping[str, Trainable], style: str) -> str:
    from tabulate import tabulate

    table = [[name, *("●" if recipe.names(name) else "" for recipe in recipes)] for name in methods]
    head = ["method", *(recipe.name for recipe in recipes)]
    title = "## Which recipe has settings for which method"
    return "\n\n".join(
        [
            title if style == "github" else title.removeprefix("## "),
            tabulate(table, headers=head, tablefmt=style),
        ]
    )
