"""What a search found, as a recipe: ``--recipe FILE`` trains every task with it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.compose.composition import COMPOSITIONS
from mtl.errors import RequestError
from mtl.files import write_text
from mtl.methods import METHODS
from mtl.search.space import setting_types
from mtl.tasks.recipes import NO_RECIPE
from mtl.tasks.yamls import is_file_name

if TYPE_CHECKING:
    from mtl.search.searching import Found


def write_recipe(
    path: Path,
    found: Sequence[Found],
    *,
    task: str,
    base: str,
    known: Sequence[str],
    recipe: str,
    asked: Mapping[str, Any],
    command: str,
) -> None:
    """Write what was found best for each method.

    The settings stand under ``methods``, for every task, and once more for the tasks ``known``,
    where the recipe beneath may have an exception; in few-shot searches likewise under
    ``few_shot``. What the user set for the trials (``--epochs``, …) goes along: the settings were
    found under it.

    Args:
        base: id of the encoder, which the notes name.
        task: that was searched.
        known: tasks that are meant, by names that recipes may use.
        recipe: what the trials extended, as the user named it.
        asked: what the user set, the same for all trials.
    """
    import yaml

    best = {item.method: _plain(item, asked) for item in found}
    sections: dict[str, Any] = {"methods": best}
    if known:
        sections["tasks"] = {m: dict.fromkeys(known, values) for m, values in best.items()}
    content: dict[str, Any] = {"name": path.stem, "notes": _notes(found, task, base)}
    if recipe != NO_RECIPE:
        content["extends"] = (
            os.path.relpath(recipe, path.parent) if is_file_name(recipe) else recipe
        )
    content |= sections
    if any(asked.get(key, asked.get(f"run.{key}")) for key in ("shots", "shots_per_class")):
        content["few_shot"] = sections
    # without aliases, which people who edit the file would trip over
    content = json.loads(json.dumps(content))
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    write_text(path, f"# {command}\n{MADE}{text}")


MADE = "# written by a search; the same search writes it again\n"
"""By which a search knows a file of its kind."""


def check_place(path: Path) -> None:
    """Refuse to write over a file that no search wrote. Raises RequestError."""
    if not path.exists():
        return
    try:
        if MADE in path.read_text(encoding="utf-8"):
            return
    except (OSError, ValueError):
        pass
    raise RequestError(f"--out {path}: there is a file that no search wrote. Name another one.")


def _plain(found: Found, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What was searched over what was set, by the names that recipes use: ``lr``, not ``run.lr``.

    Of a name that both method and run have the prefix stays.
    """
    method = (COMPOSITIONS if found.method in COMPOSITIONS else METHODS).get(found.method)
    known = setting_types(method)

    def plain(key: str) -> str:
        short = key.removeprefix("run.").removeprefix("method.")
        return short if short in known else key

    return {plain(key): value for key, value in [*asked.items(), *_chosen(found).items()]}


def _chosen(found: Found) -> Mapping[str, Any]:
    """The best values; none where the settings as they are did best: the recipe says them."""
    return found.best.values if found.best.number else {}


def _notes(found: Sequence[Found], task: str, base: str) -> str:
    lines = [
        f"{item.method}: dev {item.metric} {item.best.dev:.4f} on {item.rows} rows of {task}, "
        f"encoder {base}, the best of {len(item.tried)} trials "
        f"(seeds {', '.join(map(str, item.seeds))}; {' '.join(map(str, item.space))})."
        for item in found
    ]
    return " ".join(lines)
