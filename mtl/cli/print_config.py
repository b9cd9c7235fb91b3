"""``--print_config``: what a command line asks for, resolved, as the file that ``--config`` takes.

Every setting stands there with its value and, as a comment, where that came from, so that the file
makes the same runs when recipes and defaults have changed.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from mtl.cli.grid import Grid
from mtl.cli.plan import DEFAULT, Planned, make_plan
from mtl.engine.settings import RunSettings

if TYPE_CHECKING:
    from mtl.runs import Run
    from mtl.runs.context import Context

TOGETHER = (("epochs", "max_steps", "eval_every"), ("select", "patience"))
"""Settings that say something about each other: with one of them in a recipe alone, so are all."""
PINNED = ("sources", "source_method", "source_seed", "without_own", "allow_missing")
PICKED = ("train_missing", "budget", "min_gain", "pick")
"""Options that choose sources, which the names of the chosen ones stand for."""
SKIPPED = ("config", "print_config", "dry_run", "json", "verbose", "wait", "set", "model", "recipe")


def config_text(
    planned: Planned,
    grid: Grid,
    context: Context,
    options: Namespace,
    sources: Sequence[str] = (),
) -> str:
    """The file, without a newline at its end.

    Args:
        sources: the names of a composition's sources where they are known; else it says how they
            are chosen.
    """
    plan = make_plan(planned, context)
    runs, origins = plan.runs, plan.origins
    known = {item.name for item in fields(RunSettings)}
    skipped = {*SKIPPED, *known, *((*PINNED, *PICKED) if sources else ())}
    if getattr(options, "probe", None) is not None:
        skipped.add("method")
    lines = []
    for name, value in {
        **({"sources": list(sources)} if sources else {}),
        **{key: value for key, value in vars(options).items() if key not in skipped},
        "model": context.model,
        "recipe": options.recipe or context.suite.recipe,
    }.items():
        if value is not None and value is not False and value != []:
            lines.append(f"{name}: {_yaml(value)}")
    by_task = []
    for name in known_in_order(runs):
        values = list(dict.fromkeys(getattr(run.settings, name) for run in runs))
        if not _explicit(name, runs, grid):
            by_task.append(name)
            continue
        places = dict.fromkeys(own.get(f"run.{name}", DEFAULT) for own in origins)
        value = values[0] if len(values) == 1 else values
        lines.append(f"{name}: {_yaml(value)}  # {'; '.join(places)}")
    words = [
        (text, place)
        for key, texts, place in _method_words(runs, origins, grid, bool(sources))
        for text, place in [(f"method.{key}={texts[0]}", place), *((t, place) for t in texts[1:])]
    ]
    if words:
        lines += ["set:", *(f"  - {_yaml(text)}  # {place}" for text, place in words)]
    if by_task:
        lines.append(f"# as the recipe says for each task or method: {', '.join(by_task)}")
    return "\n".join(lines)


def known_in_order(runs: Sequence[Run]) -> list[str]:
    """The settings of runs that manifests of them would hold."""
    held = {key for run in runs for key in run.settings.to_dict()}
    return [item.name for item in fields(RunSettings) if item.name in held]


def _explicit(name: str, runs: Sequence[Run], grid: Grid) -> bool:
    """Whether a setting of the run stands in the file: asked for, or the same in all runs."""
    from mtl.joint.training import PER_TASK

    if _asked(name, "run", grid):
        return True
    if runs[0].joint and name in PER_TASK:
        return False
    group = next((group for group in TOGETHER if name in group), (name,))
    return all(
        len({getattr(run.settings, other) for run in runs}) == 1 or _asked(other, "run", grid)
        for other in group
    )


def _asked(name: str, part: str, grid: Grid) -> bool:
    return any(key in grid.points[0].overrides.values for key in (name, f"{part}.{name}"))


def _method_words(
    runs: Sequence[Run],
    origins: Sequence[Mapping[str, str]],
    grid: Grid,
    pinned: bool,
) -> Iterator[tuple[str, list[str], str]]:
    """Setting of the method, the texts of its values, and where they come from."""
    from mtl.compose.composition import COMPOSITIONS
    from mtl.methods.method import settings_dict

    shared = [{item.name for item in fields(run.method_settings)} for run in runs]
    for item in fields(runs[0].method_settings):
        name = item.name
        if not all(name in own for own in shared):
            continue
        if runs[0].kind == "composition":
            per_source = {COMPOSITIONS.get(run.method).per_source for run in runs}
            of_probe = runs[0].method == "probe"
            if name in per_source and (of_probe or not (pinned or _asked(name, "method", grid))):
                continue
        if not any(name in settings_dict(run.method_settings) for run in runs):
            continue  # one that came later and is not set, as manifests leave it out
        values = list(dict.fromkeys(getattr(run.method_settings, name) for run in runs))
        if len(values) > 1 and not _asked(name, "method", grid):
            continue
        places = dict.fromkeys(own.get(f"method.{name}", DEFAULT) for own in origins)
        yield name, [_word(value) for value in values], "; ".join(places)


def _word(value: Any) -> str:
    """A value as ``--set`` reads it back."""
    import yaml

    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    if not isinstance(value, str) or not value or yaml.safe_load(value) == value:
        return text
    return json.dumps(value)


def _yaml(value: Any) -> str:
    """A value on one line."""
    import yaml

    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
