"""Searching settings on dev: how a method is best trained here. No test row is read."""

from typing import TYPE_CHECKING

from mtl.lazy import exports

if TYPE_CHECKING:
    from mtl.search.plans import compose_trials, train_trials
    from mtl.search.recipe import write_recipe
    from mtl.search.searching import Found, search_settings
    from mtl.search.space import Dimension, read_space
    from mtl.search.trying import Tried

__all__, __getattr__, __dir__ = exports(
    __name__,
    {
        "plans": ["compose_trials", "train_trials"],
        "recipe": ["write_recipe"],
        "searching": ["Found", "search_settings"],
        "space": ["Dimension", "read_space"],
        "trying": ["Tried"],
    },
)
