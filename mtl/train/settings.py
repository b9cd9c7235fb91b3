"""From defaults, recipe, config file and command line to the settings of one run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, get_type_hints

from mtl.engine.settings import LAST, RunSettings
from mtl.errors import RequestError, did_you_mean

if TYPE_CHECKING:
    from mtl.tasks import Recipe


@dataclass(frozen=True)
class Overrides:
    """What the user set, by key; later ones win: config file, then flags, then ``--set``.

    A key is a setting of the method or of the run; ``method.key`` and ``run.key`` say which where
    both have it.
    """

    values: Mapping[str, Any] = field(default_factory=dict)


def recipe_values(recipe: Recipe, method: str, task: str, overrides: Overrides) -> dict[str, Any]:
    """What ``recipe`` says on one run; with ``shots``, its few-shot settings."""
    asked = overrides.values
    plain = recipe.settings(method, task)
    shots = asked.get("shots", asked.get("run.shots", plain.get("shots", 0)))
    if not cast_value("shots", shots, int, "the run"):
        return plain
    return recipe.settings(method, task, few_shot=True)


def resolve_settings(
    name: str,
    method_settings: type,
    defaults: Mapping[str, Any],
    recipe: Mapping[str, Any],
    recipe_name: str,
    overrides: Overrides,
) -> tuple[Any, RunSettings]:
    """Build the method's and the run's settings.

    Order: the dataclasses' defaults, ``defaults`` of the method's name, the recipe, the overrides.
    Where one setting makes another meaningless, the one that the user asked for stands: epochs go
    before the ``max_steps`` of a recipe, and ``select=last`` before its patience.

    Raises:
        RequestError: an unknown or ambiguous key (says whose), or a value that does not fit.
    """
    method: dict[str, Any] = dict(defaults)
    run: dict[str, Any] = {}
    asked: set[str] = set()
    for source, values in ((f"recipe {recipe_name!r}", recipe), ("--set", overrides.values)):
        for key, value in values.items():
            target, plain = _place(key, name, method_settings, source)
            (method if target == "method" else run)[plain] = value
            if target == "run" and source == "--set":
                asked.add(plain)
    if "epochs" in asked and "max_steps" not in asked:
        run["max_steps"] = 0
    if run.get("select") == LAST and "patience" not in asked:
        run["patience"] = 0
    return (
        _build(method_settings, method, f"method {name!r}"),
        _build(RunSettings, run, "the run"),
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
    hints = get_type_hints(settings)
    cast = {key: cast_value(key, value, hints[key], owner) for key, value in values.items()}
    return settings(**cast)


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
        if kind is str:
            return str(value)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise RequestError(
            f"Setting {key}={value!r} of {owner} must be {_SPOKEN[kind]}."
        ) from error
    raise TypeError(f"settings of type {kind} are not supported")  # a defect of a dataclass


def parse_set(items: list[str]) -> dict[str, Any]:
    """``["lr=1e-3", "head=two_layer"]`` → a dict, values read as YAML.

    Raises:
        RequestError: an item without ``=``.
    """
    import yaml

    found = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals or not key:
            raise RequestError(f"--set takes key=value, not {item!r}; for example --set lr=1e-3.")
        found[key.strip()] = yaml.safe_load(text) if text else ""
    return found
