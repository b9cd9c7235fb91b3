"""Recipes: a paper's settings per method and task, from ``tasks/recipes/*.yaml``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

from mtl.errors import RequestError, did_you_mean
from mtl.files import user_path
from mtl.tasks.yamls import (
    Catalog,
    catalog,
    check_keys,
    find_yaml,
    is_file_name,
    known_task,
    read_yaml,
)

NO_RECIPE = "none"
"""``--recipe none``: every method with the settings of its own paper."""

OF_THE_RUN = "run"
"""Source seed: sources of the seed of each run."""

SECTIONS = ("defaults", "methods", "tasks")

FEW_SHOT: Mapping[str, Any] = {
    "max_steps": 1000,
    "patience": "20 epochs",
    "select": "metric",
    "max_dev_samples": 5000,
    "eval_every": 10,
}
"""What few-shot runs change in every recipe (docs/methods.md#few-shot-runs).

The reference evaluates after each epoch, that is after 1 step up to 32 rows and after 4 of 100, and
spends nearly all its time on that; every 10 steps keep evaluations at 100. Its patience of 20
evaluations is therefore one of 20 epochs. ``--eval-every 0`` is the reference.
"""


@dataclass(frozen=True)
class Layer:
    """Settings that one place gives, over those of the layers before it.

    Attributes:
        origin: the place, as tables and messages name it.
        values: setting → value.
    """

    origin: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Sections:
    """``defaults``, ``methods`` and ``tasks`` of a file, or of a part of one.

    Attributes:
        defaults: for every run.
        methods: by methods: names separated by commas, patterns such as ``scalearn*`` allowed.
        tasks: by methods likewise, then by task id.
    """

    defaults: Mapping[str, Any] = field(default_factory=dict)
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tasks: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """Settings by method and task, as a paper or a suite fixes them.

    Attributes:
        name: what the user types.
        parts: later ones over earlier ones: of the recipe it extends, its own, of the suite.
        few_shot: likewise, applied over the others and over :data:`FEW_SHOT` in runs with
            ``shots``.
        notes: where the settings come from.
        made_for: the one suite whose tasks it was made for, "" for a paper's: messages offer only
            those.
        model: the encoder that it was published for, which messages offer it with.
        sample_of: task id → how limits take rows in the suite at hand (``Suite.sample_of``).
        source_seeds: composition → seed of its sources, ``run`` for the seed of each run.
    """

    name: str
    parts: tuple[Sections, ...] = ()
    few_shot: tuple[Sections, ...] = ()
    notes: str = ""
    made_for: str = ""
    source_seeds: Mapping[str, str] = field(default_factory=dict)
    model: str = ""
    sample_of: Callable[[str], str] | None = None

    def names(self, method: str) -> bool:
        """Whether some section ``methods`` names ``method``, if only to say: as it is."""
        return any(_matching(part.methods, method) for part in self.parts)

    def keys(self) -> list[str]:
        """The keys of all sections ``methods``, as they stand in the file."""
        return list(dict.fromkeys(key for part in self.parts for key in part.methods))

    def task_ids(self) -> list[str]:
        """The tasks that some section makes an exception for."""
        by_task = [by for part in self.parts for by in part.tasks.values()]
        return list(dict.fromkeys(task for by in by_task for task in by))

    def layers(self, method: str, task_id: str, *, few_shot: bool = False) -> list[Layer]:
        """The settings of one run by where they come from, later ones winning.

        All defaults, over them all that is said of the method, over that what is said of the task.
        Within one of them, patterns apply in the order of the file, the method's own name last.
        With ``few_shot``, :data:`FEW_SHOT` and the sections of that name apply over all of these.

        Raises:
            RequestError: the recipe does not name the method: it would train at settings that
                nobody chose.
        """
        if not self.names(method):
            raise RequestError(self._unnamed(method))
        found = list(_layers(self.parts, f"recipe {self.name}", method, task_id))
        sample = self.sample_of(task_id) if self.sample_of and task_id else "first"
        if sample != "first":
            found.insert(0, Layer("suite", {"run.sample": sample}))
        if few_shot:
            found.append(Layer("few-shot", FEW_SHOT))
            found += _layers(self.few_shot, f"recipe {self.name}, few-shot", method, task_id)
        return [layer for layer in found if layer.values]

    def settings(self, method: str, task_id: str, *, few_shot: bool = False) -> dict[str, Any]:
        """The settings of one run, as :meth:`layers` puts them over one another."""
        return merged(self.layers(method, task_id, few_shot=few_shot))

    def _unnamed(self, method: str) -> str:
        text = (
            f"Recipe {self.name!r} says nothing of method {method!r}, and a method does not train "
            f"at settings that nobody chose.{did_you_mean(method, self.keys())} "
        )
        offers = [
            f"--recipe {name}" + (f" --model {recipe.model}" if recipe.model else "")
            for name, recipe in recipes_naming(method).items()
            if name != self.name
        ]
        if offers:
            text += f"Settings for it: {'; '.join(offers)}. "
        return text + (
            f"--recipe {NO_RECIPE} takes those of its own paper, and "
            f"mtl.methods settings --method {method} shows them all. In a recipe of your own, "
            f"`methods: {{{method}: {{}}}}` stands for the same."
        )


NONE = Recipe(
    NO_RECIPE,
    parts=(Sections(methods={"*": {}}),),
    notes="Every method as its own paper trains it.",
)


def merged(layers: list[Layer]) -> dict[str, Any]:
    """The layers' settings, later ones over earlier ones."""
    return {key: value for layer in layers for key, value in layer.values.items()}


def _layers(parts: tuple[Sections, ...], origin: str, method: str, task_id: str) -> Iterator[Layer]:
    for part in parts:
        yield Layer(origin, part.defaults)
    for part in parts:
        for section in _matching(part.methods, method):
            yield Layer(f"{origin}, {method}", section)
    for part in parts:
        for by_task in _matching(part.tasks, method):
            yield Layer(f"{origin}, {method} on {task_id}", by_task.get(task_id, {}))


def _matching(sections: Mapping[str, Any], method: str) -> list[Any]:
    by_pattern, by_name = [], []
    for key, section in sections.items():
        names = [name.strip() for name in key.split(",")]
        if method in names:
            by_name.append(section)
        elif any(fnmatchcase(method, name) for name in names):
            by_pattern.append(section)
    return by_pattern + by_name


def list_recipes() -> list[str]:
    """Names of all recipes, sorted."""
    return sorted(catalog().recipes)


def recipes_naming(method: str) -> dict[str, Recipe]:
    """The recipes with settings for ``method`` by name, those of single suites left out."""
    found = {}
    for name in list_recipes():
        try:
            recipe = load_recipe(name)
        except RequestError:  # a user's file, broken: the listing of tasks says so
            continue
        if recipe.names(method) and not recipe.made_for:
            found[name] = recipe
    return found


def load_recipe(name: str, suite: str = "") -> Recipe:
    """Read a recipe by name or by the path of its YAML file; ``none`` is :data:`NONE`.

    Args:
        suite: the suite of the run: what the file says under ``suites`` for it applies, too.

    Raises:
        RequestError: unknown recipe, unknown key, or a section that is no mapping.
    """
    known = catalog()
    if name == NO_RECIPE:
        if name in known.recipes:
            raise RequestError(
                f"{known.recipes[name]}: the name {name!r} stands for no recipe; call it otherwise."
            )
        return NONE
    return _read(find_yaml(name, "recipe", known.recipes), suite, (), known)


def _read(path: Path, suite: str, within: tuple[Path, ...], known: Catalog) -> Recipe:
    content = _content(path)
    keys = (
        *("name", "notes", "extends", "made_for", "model", "source_seed"),
        *(*SECTIONS, "suites", "few_shot"),
    )
    check_keys(content, keys, (), str(path))
    parts: tuple[Sections, ...] = ()
    few: tuple[Sections, ...] = ()
    seeds: dict[str, str] = {}
    model = ""
    if content.get("extends") is not None:
        extended = str(content["extends"])
        if is_file_name(extended):
            extended = str(path.parent / user_path(extended, f"extends of {path}"))
        other = find_yaml(extended, "recipe", known.recipes)
        if other in (path, *within):
            raise RequestError(f"{path}: extends leads back to {other.name}.")
        below = _read(other, suite, (path, *within), known)
        parts, few, seeds = below.parts, below.few_shot, dict(below.source_seeds)
        model = below.model
    parts += (_sections(content, path, "", known),)
    for name, section in _mapping(content.get("suites"), path, "suites").items():
        if name not in known.suites:
            raise RequestError(
                f"{path}: suites names {name!r}, which is no suite."
                f"{did_you_mean(name, known.suites)}"
            )
        read = _inner(section, path, f"suites.{name}", known)
        parts += (read,) if name == suite else ()
    for name, seed in _mapping(content.get("source_seed"), path, "source_seed").items():
        if seed != OF_THE_RUN and (isinstance(seed, bool) or not isinstance(seed, int)):
            raise RequestError(
                f"{path}: source_seed.{name} must be a whole number or {OF_THE_RUN!r}, it is "
                f"{seed!r}."
            )
        seeds[name] = str(seed)
    if content.get("few_shot") is not None:
        few += (_inner(content["few_shot"], path, "few_shot", known),)
    return Recipe(
        name=str(content.get("name") or path.stem),
        parts=parts,
        few_shot=few,
        notes=str(content.get("notes") or "").strip(),
        made_for=str(content.get("made_for") or ""),
        source_seeds=seeds,
        model=str(content.get("model") or model),
    )


def _content(path: Path) -> Mapping[str, Any]:
    """The file's content, read again when it changed."""
    try:
        stat = path.stat()
    except OSError:
        return read_yaml(path)  # which says what is wrong
    return _parsed(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _parsed(path: Path, changed: int, size: int) -> Mapping[str, Any]:
    return read_yaml(path)


def _inner(content: Any, path: Path, where: str, known: Catalog) -> Sections:
    inner = _mapping(content, path, where)
    check_keys(inner, SECTIONS, (), f"{path}, {where}")
    return _sections(inner, path, f"{where}.", known)


def _sections(content: Mapping[str, Any], path: Path, where: str, known: Catalog) -> Sections:
    return Sections(
        _mapping(content.get("defaults"), path, f"{where}defaults"),
        {
            method: _mapping(section, path, f"{where}methods.{method}")
            for method, section in _mapping(content.get("methods"), path, f"{where}methods").items()
        },
        {
            method: {
                known_task(str(task), path, known): _mapping(
                    section, path, f"{where}tasks.{method}.{task}"
                )
                for task, section in _mapping(by_task, path, f"{where}tasks.{method}").items()
            }
            for method, by_task in _mapping(content.get("tasks"), path, f"{where}tasks").items()
        },
    )


def _mapping(value: Any, path: Path, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RequestError(f"{path}: {where} must hold keys and values, it is {value!r}.")
    return {str(key): item for key, item in value.items()}
