"""From defaults, recipe, config file and command line to the settings of one run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, get_type_hints

from mtl.engine.settings import LAST, RunSettings, Training
from mtl.errors import RequestError, did_you_mean

if TYPE_CHECKING:
    from mtl.tasks import Layer, Recipe

OWN = "the method's paper"
"""Origin of what a method brings along."""
ASKED = "--set"
"""Origin of what the user set, by a flag or in a file, too."""


@dataclass(frozen=True)
class Overrides:
    """What the user set, by key; later ones win: config file, then flags, then ``--set``.

    A key is a setting of the method or of the run; ``method.key`` and ``run.key`` say which where
    both have it.

    Attributes:
        places: key → where it was set (``--lr``, ``--config run.yaml``); :data:`ASKED` otherwise.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)


class Trainable(Protocol):
    """What resolving asks of a method, composition or joint method."""

    @property
    def name(self) -> str: ...
    @property
    def settings(self) -> type: ...
    @property
    def defaults(self) -> Mapping[str, Any]: ...
    @property
    def training(self) -> Training: ...


@dataclass(frozen=True)
class Resolved:
    """The settings of a run with where each comes from.

    Attributes:
        method, run: the two dataclasses.
        origins: ``method.key`` or ``run.key`` → name of the layer; what is not in it is the
            dataclass' own default.
    """

    method: Any
    run: RunSettings
    origins: Mapping[str, str]


def recipe_layers(recipe: Recipe, method: str, task: str, overrides: Overrides) -> list[Layer]:
    """What ``recipe`` says on one run; with ``shots``, its few-shot settings.

    Raises:
        RequestError: the recipe does not name the method.
    """
    from mtl.tasks.recipes import merged

    asked = overrides.values
    plain = recipe.layers(method, task)
    few = False
    for key in ("shots", "shots_per_class"):
        shots = asked.get(key, asked.get(f"run.{key}", merged(plain).get(key, 0)))
        few = bool(cast_value(key, shots, int, "the run")) or few
    return recipe.layers(method, task, few_shot=True) if few else plain


def resolve_settings(
    chosen: Trainable, recipe: Sequence[Layer], overrides: Overrides
) -> tuple[Any, RunSettings]:
    """Build the method's and the run's settings. See :func:`trace_settings`."""
    found = trace_settings(chosen, recipe, overrides)
    return found.method, found.run


def trace_settings(chosen: Trainable, recipe: Sequence[Layer], overrides: Overrides) -> Resolved:
    """Build the method's and the run's settings, and say where each comes from.

    Order: the dataclasses' defaults, those of the method's name and its paper, the recipe, the
    overrides. Where one setting makes another meaningless, the one on top stands: epochs drop the
    steps beneath them, ``eval_every`` included, and ``select=last`` a patience that no user set.

    Raises:
        RequestError: an unknown or ambiguous key (says whose), or a value that does not fit.
    """
    from mtl.tasks.recipes import Layer

    brought = {f"method.{key}": value for key, value in chosen.defaults.items()}
    brought |= {f"run.{key}": value for key, value in chosen.training.values.items()}
    asked = Layer(ASKED, overrides.values)
    values: dict[str, dict[str, Any]] = {"method": {}, "run": {}}
    origins: dict[str, str] = {}
    for layer in (Layer(OWN, brought), *recipe, asked):
        found: dict[str, dict[str, Any]] = {"method": {}, "run": {}}
        for key, value in layer.values.items():
            origin = overrides.places.get(key, ASKED) if layer is asked else layer.origin
            target, plain = _place(key, chosen.name, chosen.settings, origin)
            found[target][plain] = value
            origins[f"{target}.{plain}"] = origin
        run = found["run"]
        if "epochs" in run and "max_steps" not in run and values["run"].get("max_steps"):
            found["run"] = {"max_steps": 0, "eval_every": 0, **run}
            for key in ("max_steps", "eval_every"):
                if key not in run:
                    origins[f"run.{key}"] = origins["run.epochs"]
        for target, items in found.items():
            values[target].update(items)
    if values["run"].get("select") == LAST and "patience" not in found["run"]:  # of what was asked
        values["run"]["patience"] = 0
        origins["run.patience"] = origins["run.select"]
    return Resolved(
        _build(chosen.settings, values["method"], f"method {chosen.name!r}"),
        _build(RunSettings, values["run"], "the run"),
        origins,
    )


def _place(key: str, name: str, method_settings: type, source: str) -> tuple[str, str]:
    """Which of the two dataclasses a key belongs to, and its name there."""
    own = {item.name for item in fields(method_settings)}
    run = {item.name for item in fields(RunSettings)}
    prefix, dot, rest = key.partition(".")
    if dot and prefix in {"method", "run"}:
        known = own if prefix == "method" else run
        if rest in known:
            return prefix, rest
        raise RequestError(
            f"Unknown setting {key!r} from {source}.{did_you_mean(rest, known)} "
            f"Known: {', '.join(sorted(known))}."
        )
    if key in own and key in run:
        raise RequestError(
            f"Setting {key!r} from {source} belongs to method {name!r} and to the run: write "
            f"method.{key} or run.{key}."
        )
    if key in own:
        return "method", key
    if key in run:
        return "run", key
    raise RequestError(
        f"Unknown setting {key!r} from {source}.{did_you_mean(key, own | run)} Method {name!r} "
        f"has {', '.join(sorted(own)) or 'none'}; a run has {', '.join(sorted(run))}."
    )


def _build(settings: type, values: Mapping[str, Any], owner: str) -> Any:
    hints = _hints(settings)
    cast = {key: cast_value(key, value, hints[key], owner) for key, value in values.items()}
    return settings(**cast)


@lru_cache(maxsize=256)
def _hints(settings: type) -> Mapping[str, Any]:
    return get_type_hints(settings)  # which compiles every one of them


_SPOKEN: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "text",
    int | str: "a number, or one with its unit",
    float | str: "a number, or one with its unit",
}


def cast_value(key: str, value: Any, kind: Any, owner: str) -> Any:
    """``value`` as a setting of type ``kind``; a string is read as YAML would read it.

    Raises:
        RequestError: it cannot be.
    """
    try:
        if kind in {int | str, float | str}:  # a length with its unit: its owner reads it
            if isinstance(value, bool) or not isinstance(value, int | float | str):
                raise ValueError
            return value
        if kind is bool:
            if isinstance(value, bool):
                return value
            return {"true": True, "false": False}[str(value).lower()]
        if kind is int:
            if isinstance(value, bool) or float(value) != int(float(value)):
                raise ValueError
            return int(float(value))
        if kind is float:
            # YAML reads 1e-3 as a string; nobody means it as one.
            number = float(value)
            if not math.isfinite(number):
                raise ValueError
            return number
        if kind is str and not isinstance(value, list | dict):
            return str(value)
        if kind is str:
            raise TypeError
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        several = isinstance(value, list) or (kind in (int, float) and "," in str(value))
        raise RequestError(
            f"Setting {key}={value!r} of {owner} must be {_SPOKEN[kind]}."
            + (f" Several runs are asked for as --set {key}=ONE OTHER." if several else "")
        ) from error
    raise TypeError(f"settings of type {kind} are not supported")  # a defect of a dataclass


def parse_set(items: Sequence[str]) -> dict[str, Any]:
    """``["lr=1e-3", "head=two_layer"]`` → a dict, values read as YAML.

    Raises:
        RequestError: an item without ``=``, a key twice, or with several values.
    """
    found = parse_sets(items)
    for key, values in found.items():
        if len(values) > 1:
            raise RequestError(
                f"--set {key}={' '.join(map(str, values))}: one value is taken here, not several."
            )
    return {key: values[0] for key, values in found.items()}


def parse_sets(items: Sequence[str]) -> dict[str, list[Any]]:
    """``["lr=1e-3", "3e-3", "modules=q,v"]`` → ``{"lr": ["1e-3", "3e-3"], "modules": ["q,v"]}``.

    A word without ``=`` is another value of the key before it, so commas and brackets stay parts of
    values. Every value is read as YAML; what is a template, or no YAML at all, is the text itself.

    Raises:
        RequestError: a first word without ``=``, or a key twice.
    """
    found: dict[str, list[Any]] = {}
    key = ""
    for item in items:
        name, equals, text = item.partition("=")
        if equals:
            key = name.strip()
            if key in found:
                raise RequestError(
                    f"--set names {key} twice; several values, a run for each, follow one key: "
                    f"--set {key}=ONE OTHER."
                )
        if not key:
            raise RequestError(f"--set takes key=value, not {item!r}; for example --set lr=1e-3.")
        value = text if equals else item
        found.setdefault(key, []).append(_read(value) if value else "")
    return found


def _read(text: str) -> Any:
    import yaml

    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return text if isinstance(value, dict) else value
