"""What a command line asks for: settings with the places where they stand, and the runs of a grid.

Every setting of the run and of the method may have several values, and ``--method`` several names:
``--method pfeiffer lora --lr 1e-3 3e-3 --set dropout=0 0.1`` are the eight runs of all combinations
(per task and seed). Values stand with spaces, never with commas: ``modules=q,v`` is one value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import product
from typing import TYPE_CHECKING, Any

from mtl.engine.settings import RunSettings
from mtl.errors import RequestError
from mtl.runs.settings import Overrides, parse_sets

if TYPE_CHECKING:
    from argparse import Namespace

    from mtl.cli.options import Parser
    from mtl.runs import Run


@dataclass(frozen=True)
class Point:
    """One of the combinations: a method and what the user set."""

    method: str
    overrides: Overrides


@dataclass(frozen=True)
class Grid:
    """All combinations that a command line asks for.

    Attributes:
        points: at least one, the last of the listed settings changing first.
        axes: what has several values → these; ``method``, or a key of :class:`Overrides`.
    """

    points: list[Point]
    axes: Mapping[str, Sequence[Any]] = field(default_factory=dict)


def read_grid(options: Namespace, parser: Parser) -> Grid:
    """The grid of a command line, before any of its names is looked up.

    Raises:
        RequestError: a value twice, or a word of ``--set`` that belongs to no key.
    """
    from mtl.cli.options import names

    values, places = _asked(options, parser)
    methods = names([options.method] if isinstance(options.method, str) else options.method)
    for key, listed in {"method": methods, **values}.items():
        same = [str(one) for one in listed if [_plain(v) for v in listed].count(_plain(one)) > 1]
        if same:
            where = places.get(key, "--method")
            name = f" {key}" if where.startswith(("--set", "--config")) else ""
            raise RequestError(f"{where}{name}: {' and '.join(same)} are the same value.")
    keys = list(values)
    points = [
        Point(method, Overrides(dict(zip(keys, chosen, strict=True)), places))
        for method in methods
        for chosen in product(*values.values())
    ]
    axes = {"method": methods, **values}
    return Grid(points, {key: listed for key, listed in axes.items() if len(listed) > 1})


def one_point(options: Namespace, parser: Parser, method: str, why: str) -> Grid:
    """The grid of a command that takes one value of every setting. Raises RequestError: ``why``."""
    values, places = _asked(options, parser)
    several = {key: listed for key, listed in values.items() if len(listed) > 1}
    refuse_several(Grid([], several), why)
    asked = {key: listed[0] for key, listed in values.items()}
    return Grid([Point(method, Overrides(asked, places))])


def _asked(options: Namespace, parser: Parser) -> tuple[dict[str, list[Any]], dict[str, str]]:
    """Key → its values, and where they stand: config file, over it flags, over them ``--set``."""
    values: dict[str, list[Any]] = {}
    places: dict[str, str] = {}
    file = f"--config {getattr(options, 'config', '')}"
    for item in fields(RunSettings):
        given = getattr(options, item.name)
        if given is not None:
            key = f"run.{item.name}"
            values[key] = given if isinstance(given, list) else [given]
            of_file = given is parser.from_file.get(item.name)
            places[key] = file if of_file else f"--{item.name.replace('_', '-')}"
    in_file = len(parser.from_file.get("set", ()))
    for words, place in ((options.set[:in_file], file), (options.set[in_file:], "--set")):
        for key, listed in parse_sets(words).items():
            plain = key.removeprefix("run.").removeprefix("method.")
            for other in (plain, f"run.{plain}", f"method.{plain}"):
                # `lr` is `run.lr`; `run.lr` and `method.lr` are two
                if other == key or "." not in key or "." not in other:
                    values.pop(other, None)
            values[key] = listed
            places[key] = place
    return values, places


def _plain(value: Any) -> Any:
    """What ``1e-3`` and ``0.001`` have in common."""
    try:
        return float(str(value))
    except ValueError:
        return str(value)


def refuse_several(grid: Grid, why: str) -> None:
    """Refuse lists of values where they make no sense. Raises RequestError."""
    for key, listed in grid.axes.items():
        plain = key.removeprefix("run.")
        raise RequestError(
            f"{plain} has {len(listed)} values ({', '.join(map(str, listed))}), and {why}"
        )


def refuse_twins(planned: Sequence[tuple[Point, Sequence[Run]]], grid: Grid) -> None:
    """Refuse a grid in which two combinations are one run, or train the same.

    Raises:
        RequestError: a listed setting does not decide the result.
    """
    seen: dict[str, Point] = {}
    for point, runs in planned:
        for run in runs:
            other = seen.setdefault(run.runhash, point)
            if other is not point:
                mine, theirs = (_of(one, grid) for one in (point, other))
                raise RequestError(
                    f"{run.label}: {theirs} and {mine} are the same run: what differs does not "
                    "decide its result. Give one value."
                )
    steps = [run.settings.max_steps for _, runs in planned for run in runs]
    if {"epochs", "run.epochs"} & grid.axes.keys() and steps and all(steps):
        raise RequestError(
            "epochs has several values, and with max_steps none of them has an effect: give "
            "--max-steps 0, or several of it."
        )


def _of(point: Point, grid: Grid) -> str:
    values = {"method": point.method, **point.overrides.values}
    return ", ".join(f"{key.removeprefix('run.')}={values[key]}" for key in grid.axes)
