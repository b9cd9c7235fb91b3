"""Recipes: every section belongs to a method we have, and every setting of it is one."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest

from mtl.compose import COMPOSITIONS
from mtl.joint import JOINT
from mtl.methods import METHODS
from mtl.tasks import list_recipes, list_tasks, load_recipe, load_task
from mtl.train.settings import Overrides, resolve_settings

ALL = {name: registry for registry in (METHODS, COMPOSITIONS, JOINT) for name in registry.names()}


@pytest.mark.parametrize("name", list_recipes())
def test_every_section_resolves(name: str) -> None:
    recipe = load_recipe(name)
    covered = set()
    for pattern in {*recipe.methods, *recipe.tasks}:
        methods = [method for method in ALL if fnmatchcase(method, pattern)]
        assert methods, f"{pattern} names no method"
        tasks = [task for by in recipe.tasks.values() for task in by] or list_tasks()[:1]
        for method in methods:
            chosen = ALL[method].get(method)
            for task in tasks:
                values = recipe.settings(method, load_task(task).id)
                resolve_settings(
                    method, chosen.settings, chosen.defaults, values, name, Overrides({})
                )
                covered.add(method)
    assert covered


def test_the_papers_settings_arrive() -> None:
    def of(recipe: str, method: str, task: str) -> dict[str, object]:
        return load_recipe(recipe).settings(method, task)

    assert of("adakron", "adakron", "glue/qqp").items() >= {"lr": 5e-4, "epochs": 60}.items()
    assert of("adakron", "madakron-full", "glue/cola")["epochs"] == 80
    assert of("adakron", "adamix", "glue/mnli").items() >= {"epochs": 20, "experts": 4}.items()
    rte = of("adalora", "adalora", "glue/rte")
    assert rte.items() >= {"gamma": 0.3, "final_warmup": 1800, "lr": 1.2e-3}.items()
    assert of("sora", "sora", "glue/stsb").items() >= {"eta": 10.0, "xi": 3e-4, "clip": 0.1}.items()
    assert of("sora", "sora", "glue/rte").items() >= {"schedule_stages": 7, "epochs": 50}.items()
    assert of("tensorized", "tensorized-tt", "glue/mrpc")["train_layer_norm"] is True
