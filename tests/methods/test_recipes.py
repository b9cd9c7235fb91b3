"""Recipes: every section belongs to a method we have, and every setting of it is one."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest

from mtl.compose import COMPOSITIONS
from mtl.compose.stage_two import resolve_compose
from mtl.engine import RunSettings
from mtl.errors import RequestError
from mtl.joint import JOINT, resolve_joint
from mtl.methods import METHODS
from mtl.tasks import list_recipes, list_tasks, load_recipe, load_suite, load_task
from mtl.train import resolve_train
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


def test_the_last_state_is_kept_where_the_papers_keep_it() -> None:
    assert run_of("sora", "sora", "glue/rte").select == "last"  # the scheduled run, §4.4
    assert run_of("sora", "sora", "glue/stsb").select == "metric"
    for task in load_suite("glue").tasks:
        wanted = "last" if task in {"glue/cola", "glue/stsb"} else "metric"
        for method in ("adakron", "madakron-full", "madakron-partial", "adamix"):
            assert run_of("adakron", method, task).select == wanted
        run = run_of("tensorized", "tensorized-cp", task)
        assert (run.select, run.patience) == ("last", 0)


def test_references_that_trained_with_the_hugging_face_adamw() -> None:
    for recipe, method, form in (
        ("reference", "scalearn", "hf"),
        ("reference", "adapter-m", "hf"),
        ("tensorized", "tensorized-tr", "hf"),
        ("adakron", "adakron", "hf"),
        ("sora", "sora", "hf"),
        ("scalearn", "scalearn", "torch"),
        ("demo", "pfeiffer", "torch"),
    ):
        assert run_of(recipe, method, "glue/rte").adam_form == form


def test_adalora_warms_up_for_the_steps_of_its_scripts() -> None:
    """Spec methods §5.4; in a run of another length, too, but for MRPC, which has a share."""
    scripts = {
        "cola": 100, "mnli": 1000, "qnli": 500, "qqp": 2000, "rte": 200, "sst2": 1000, "stsb": 100
    }  # fmt: skip
    for name, steps in scripts.items():
        run = run_of("adalora", "adalora", f"glue/{name}")
        assert run.warmup_steps(5_000) == run.warmup_steps(90_000) == steps
    assert run_of("adalora", "adalora", "glue/mrpc").warmup_steps(3_450) == 345


@pytest.mark.parametrize("recipe", ["scalearn", "reference"])
def test_patience_of_the_papers_does_not_hang_on_evaluations(recipe: str) -> None:
    for method, patience in (
        ("pfeiffer", "5 epochs"),
        ("scalearn", "30 epochs"),
        ("average", "30 epochs"),
        ("fusion", "5 epochs"),
        ("adapter-m", "75000 steps"),
    ):
        run = run_of(recipe, method, "glue/rte", eval_every=10)
        assert (run.patience, run.eval_every) == (patience, 10)
        assert run_of(recipe, method, "glue/rte", patience="3 epochs").patience == "3 epochs"
        assert run_of(recipe, method, "glue/rte", patience=3).patience == 3


def run_of(recipe: str, method: str, task: str, **asked: object) -> RunSettings:
    """The run settings that a user gets who sets ``asked``."""
    overrides = Overrides({f"run.{key}": value for key, value in asked.items()})
    if method in JOINT.names():
        return resolve_joint(JOINT.get(method), load_recipe(recipe), overrides, [task])[1]
    if method in COMPOSITIONS.names():
        return resolve_compose(load_task(task), method, load_recipe(recipe), overrides)[1]
    return resolve_train(load_task(task), METHODS.get(method), load_recipe(recipe), overrides)[1]


@pytest.mark.parametrize("method", ["pfeiffer", "scalearn", "adapter-m"])
def test_what_the_user_asks_for_goes_before_what_it_makes_meaningless(method: str) -> None:
    """Patience waits for nothing with ``last``; epochs of the user are not the recipe's steps."""
    run = run_of("scalearn", method, "glue/rte", select="last")
    assert (run.select, run.patience) == ("last", 0)
    with pytest.raises(RequestError, match=r"patience=3 .*select=last .*patience=0"):
        run_of("scalearn", method, "glue/rte", select="last", patience=3)
    run = run_of("scalearn", method, "glue/rte", epochs=3)
    assert (run.epochs, run.max_steps) == (3, 0)
    assert run_of("scalearn", method, "glue/rte", epochs=3, max_steps=9).max_steps == 9
    assert run_of("scalearn", "adapter-m", "glue/rte").max_steps == 375_000
    if method != "adapter-m":  # a joint run has no few-shot settings
        assert run_of("scalearn", method, "glue/rte", shots=16).max_steps == 1000
        assert run_of("scalearn", method, "glue/rte", shots=16, epochs=3).max_steps == 0
        run = run_of("scalearn", method, "glue/rte", shots=16, select="last")
        assert (run.select, run.patience) == ("last", 0)
