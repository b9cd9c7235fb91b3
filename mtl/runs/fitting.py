"""Whether the settings of a recipe were made for encoders of the size at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtl.backbone.shapes import known_width
from mtl.tasks.recipes import NO_RECIPE
from mtl.zoo.quality import RECIPE, SMALL, small_rate

if TYPE_CHECKING:
    from mtl.runs.run import Run
    from mtl.runs.settings import Overrides
    from mtl.tasks import Recipe


def rate_note(run: Run, recipe: Recipe, overrides: Overrides) -> str | None:
    """What to say of a rate that nobody asked for, made for a larger encoder than this one.

    None where the encoder is not small, the user gave the rate, the recipe was not published for an
    encoder of known larger size, or its rate is that of recipe ``small`` anyway.
    """
    width = run.backbone.base.hidden_size
    if width > SMALL or {"lr", "run.lr"} & overrides.values.keys():
        return None
    papers = recipe.name == NO_RECIPE
    made = None if papers else known_width(recipe.model)
    if not papers and (made is None or made <= SMALL):
        return None
    rate = small_rate(run.method, width)
    if rate is not None and run.settings.lr >= rate:
        return None
    size = "encoders of base size and above" if papers else f"{recipe.model} (hidden size {made})"
    better = (
        f"--recipe {RECIPE} trains it at {rate:g}"
        if rate is not None
        else "if the loss hardly moves, give a higher --lr"
    )
    return (
        f"{run.method} trains at lr {run.settings.lr:g}, made for {size}; this encoder has "
        f"hidden size {width}: {better}"
    )
