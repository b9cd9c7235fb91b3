"""A search of a study: what it tries, whether it is done, and carrying it out into a recipe.

What :mod:`mtl.search` does for one method, here for a cell. Beside the journal of the trials,
``<runs>/search/<hash>/``, which goes on in whatever study asks for the same, stand::

    recipe-<hash>.yaml    what was found, over the study's recipe: the runs take it
    trials-<hash>.txt     all trials as a table, trials-<hash>.png as a picture

with the hash of all that decides them: the runs without the search, the space, how many trials, the
recipe beneath, what is set, the tasks that use it. The recipe comes last: where it is, it is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.errors import RequestError
from mtl.files import sha256_bytes, sha256_json, write_text
from mtl.search.plans import compose_trials, train_trials
from mtl.search.searching import search_folder, search_settings
from mtl.search.space import size
from mtl.study.cells import Cell
from mtl.study.searches import space_of
from mtl.study.work import Desk, request_of

if TYPE_CHECKING:
    from mtl.runs import Run
    from mtl.search.space import Dimension
    from mtl.search.trying import Tried


@dataclass(frozen=True)
class Trials:
    """A search whose sources are there.

    Attributes:
        make: settings → the runs of a trial, one per seed.
        plain: the run of the first seed as it is without the search.
        space: what is searched over; ``count``, trials beside that one.
        identity: hash of all that decides the recipe.
        recipe: where it is to be.
    """

    make: Callable[[Mapping[str, Any]], list[Run]]
    plain: Run
    space: tuple[Dimension, ...]
    count: int
    identity: str
    recipe: Path

    @property
    def state(self) -> str:
        """``done``, ``resumable`` or ``missing``."""
        if self.recipe.is_file():
            return "done"
        return "resumable" if (self.recipe.parent / "journal.log").exists() else "missing"


def plan_trials(cell: Cell, desk: Desk) -> Trials:
    """What the search of ``cell`` tries; of a composition with its sources named.

    Raises:
        RequestError: unusable settings, base or data.
    """
    assert cell.search is not None
    search, context, space = cell.search, desk.context(cell), space_of(cell)
    if cell.kind == "composition":
        make = compose_trials(request_of(cell, desk), context)
    else:
        (spec,) = desk.specs(cell)
        make = train_trials(context, spec, cell.method, search.seeds)
    plain = make({})
    folder = search_folder(cell.method, plain, space, search.prune, context.workspace).absolute()
    # two files may call their recipes alike, and what is found extends one of them
    beneath = cell.recipe or context.recipe.name
    beside = [beneath, dict(cell.settings), list(_named(cell))]
    identity = sha256_json([folder.name, search.trials, *beside])[:16]
    count = int(min(search.trials, size(space)))
    return Trials(make, plain[0], space, count, identity, folder / f"recipe-{identity}.yaml")


def carry_out(
    cell: Cell,
    trials: Trials,
    desk: Desk,
    step: Callable[[int, int], object],
    say: Callable[[str], object],
) -> dict[str, Any]:
    """Search, and write what was found; what tables show of it.

    Args:
        step: is told of every trial: trials done, and all of them.
        say: takes remarks.

    Raises:
        HeldError: another process is at it.
        RunError: all trials failed.
    """
    import torch

    from mtl.engine.progress import listening
    from mtl.search import write_recipe
    from mtl.search.picture import draw_search
    from mtl.search.table import search_text

    assert cell.search is not None
    search, context = cell.search, desk.context(cell)

    def tell(tried: Tried) -> None:
        step(tried.number + 1, trials.count + 1)

    with listening(lambda done, total: None):  # a trial's steps are not those of the search
        found = search_settings(
            *(cell.method, trials.make, trials.space, search.trials, context.workspace),
            prune=search.prune,
            tell=tell,
        )
    beside = trials.recipe.with_name(trials.recipe.stem.replace("recipe", "trials"))
    write_text(beside.with_suffix(".txt"), search_text(found) + "\n")
    try:
        draw_search([found], beside.with_suffix(".png"))
    except RequestError as error:  # a picture less
        say(f"{cell.label}: {error}")
    write_recipe(
        trials.recipe,
        [found],
        task=cell.ids[0],
        base=trials.plain.backbone.base.id,
        known=_named(cell),
        recipe=cell.recipe or context.recipe.name,
        asked=cell.settings,
        command=f"a search of a study: {cell.label}",
    )
    return {
        "ref": str(trials.recipe),
        "digest": recipe_digest(trials.recipe),
        "metric": found.metric,
        "dev": found.best.dev,
        "test": None,
        "steps": sum(item.steps for item in found.tried),
        "seconds": sum(item.seconds for item in found.tried),
        "threads": torch.get_num_threads(),
    }


def recipe_digest(path: Path) -> str:
    """Hex sha256 of a recipe."""
    return sha256_bytes(path.read_bytes())


def _named(cell: Cell) -> list[str]:
    """The tasks that take the recipe, by names that a recipe may use."""
    from mtl.tasks import list_tasks

    assert cell.search is not None
    known = {*list_tasks()}
    return [task for task in cell.search.users if task in known]
