"""Recipes: every section belongs to a method we have, and every setting of it is one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mtl.compose import COMPOSITIONS
from mtl.compose.stage_two import resolve_compose
from mtl.engine.settings import RunSettings
from mtl.errors import RequestError
from mtl.joint import JOINT, resolve_joint
from mtl.methods import METHODS
from mtl.runs.settings import OWN, Overrides, resolve_settings, trace_settings
from mtl.tasks import list_recipes, list_suites, load_recipe, load_suite, load_task
from mtl.tasks.recipes import Sections
from mtl.train import resolve_train

ALL = {name: registry for registry in (METHODS, COMPOSITIONS, JOINT) for name in registry.names()}


def parts(name: str) -> list[Sections]:
    """All of a recipe, those for single suites and for few shots included."""
    recipes = [load_recipe(name, suite) for suite in ("", *list_suites())]
    found = [part for recipe in recipes for part in (*recipe.parts, *recipe.few_shot)]
    return list({id(part): part for part in found}.values())


def keys(name: str) -> list[str]:
    return [key for part in parts(name) for by in (part.methods, part.tasks) for key in by]


@pytest.mark.parametrize("name", list_recipes())
def test_every_section_resolves(name: str) -> None:
    """Methods by their names: a pattern would also take in methods that nobody meant."""
    for key in keys(name):
        assert key == "*" or all(method.strip() in ALL for method in key.split(",")), key
    tasks = {task for part in parts(name) for by in part.tasks.values() for task in by}
    recipe = load_recipe(name)
    named = [method for method in ALL if recipe.names(method)]
    assert named
    for method in named:
        for task in (*sorted(tasks), ""):
            layers = recipe.layers(method, task)
            resolve_settings(ALL[method].get(method), layers, Overrides({}))
    for part in parts(name):
        for key in part.tasks:
            assert key == "*" or all(recipe.names(method.strip()) for method in key.split(","))


def test_every_method_has_the_settings_of_its_paper() -> None:
    """And says where they stand; ``--recipe none`` trains at them."""
    recipe = load_recipe("none")
    for method, registry in ALL.items():
        chosen = registry.get(method)
        assert chosen.training.source, method
        assert {"lr", "patience"} <= {*chosen.training.values}
        assert {"epochs", "max_steps"} & {*chosen.training.values}
        found = trace_settings(chosen, recipe.layers(method, "glue/rte"), Overrides({}))
        assert {found.origins[f"run.{key}"] for key in chosen.training.values} == {OWN}
        assert {k: getattr(found.run, k) for k in chosen.training.values} == dict(
            chosen.training.values
        )


def test_the_demo_names_every_method() -> None:
    recipe = load_recipe("demo")
    assert all(recipe.names(method) for method in ALL)


@pytest.mark.parametrize("name", ["scalearn", "adalora"])
@pytest.mark.parametrize("method", ALL)
def test_a_recipe_that_does_not_name_a_method_does_not_train_it(name: str, method: str) -> None:
    """The message's recipes resolve for the method, whichever it is."""
    recipe = load_recipe(name)
    if recipe.names(method):
        return
    with pytest.raises(RequestError) as caught:
        recipe.settings(method, "glue/rte")
    said = str(caught.value)
    assert f"Recipe {name!r} says nothing of method {method!r}" in said
    names = re.findall(r"--recipe ([a-z-]+)", said)
    assert "none" in names
    assert "demo" not in names
    for other in names:
        if other != "none":
            assert f"--recipe {other} --model {load_recipe(other).model}" in said
        chosen = ALL[method].get(method)
        resolve_settings(chosen, load_recipe(other).layers(method, "glue/rte"), Overrides({}))


def test_the_methods_own_settings_lie_below_a_recipe_of_ones_own(tmp_path: Path) -> None:
    def run(text: str, method: str, **asked: Any) -> RunSettings:
        (tmp_path / "own.yaml").write_text(text)
        layers = load_recipe(str(tmp_path / "own.yaml")).layers(method, "glue/rte")
        overrides = Overrides({f"run.{key}": value for key, value in asked.items()})
        return resolve_settings(ALL[method].get(method), layers, overrides)[1]

    few = run("defaults: {epochs: 2}\nmethods: {full-ft: {}}\n", "full-ft")
    assert (few.lr, few.epochs, few.patience) == (2e-5, 2, "5 epochs")
    # epochs drop the 375,000 steps of a joint method, and its evaluations every 7,500
    joint = run("defaults: {epochs: 2}\nmethods: {'*': {}}\n", "adapter-m")
    assert (joint.epochs, joint.max_steps, joint.eval_every, joint.warmup) == (2, 0, 0, 0.1)
    asked = run("methods: {adapter-m: {}}\n", "adapter-m", epochs=3)
    assert (asked.epochs, asked.max_steps, asked.eval_every) == (3, 0, 0)
    asked = run("methods: {adapter-m: {}}\n", "adapter-m", epochs=3, max_steps=50)
    assert (asked.max_steps, asked.eval_every) == (50, 7500)
    with pytest.raises(RequestError, match=r"'own' says nothing .*'full-ft'.*methods: \{full-ft"):
        run("defaults: {epochs: 2}\n", "full-ft")
    with pytest.raises(RequestError, match=r"Did you mean 'ful-ft'"):
        run("methods: {ful-ft: {}}\n", "full-ft")


def test_extending_a_recipe_and_settings_of_one_suite(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(
        "defaults: {epochs: 4, clip: 2.0}\nmethods:\n  fusion, soup: {lr: 1.0, epochs: 5}\n"
        "tasks: {fusion: {glue/rte: {epochs: 6}}}\nsuites: {glue: {methods: {fusion: {lr: 2.0}}}}\n"
        "few_shot: {defaults: {clip: 3.0}}\n"
    )
    other = tmp_path / "other.yaml"
    other.write_text("extends: one.yaml\nmethods: {fusion: {epochs: 7}, probe: {}}\n")

    def of(method: str, task: str, suite: str = "", **rest: bool) -> Mapping[str, Any]:
        return load_recipe(str(other), suite).settings(method, task, **rest)

    assert of("fusion", "glue/rte") == {"epochs": 6, "clip": 2.0, "lr": 1.0}
    assert of("fusion", "glue/cola") == {"epochs": 7, "clip": 2.0, "lr": 1.0}
    assert of("soup", "glue/rte") == {"epochs": 5, "clip": 2.0, "lr": 1.0}
    assert of("probe", "glue/rte") == {"epochs": 4, "clip": 2.0}
    assert of("fusion", "glue/cola", "glue")["lr"] == 2.0
    assert of("probe", "glue/rte", few_shot=True)["clip"] == 3.0
    other.write_text("extends: other.yaml\n")
    with pytest.raises(RequestError, match=r"extends leads back to other.yaml"):
        load_recipe(str(other))
    other.write_text("suites: {gleu: {}}\n")
    with pytest.raises(RequestError, match=r"'gleu', which is no suite. Did you mean 'glue'"):
        load_recipe(str(other))
    assert load_suite("glue+superglue").recipe == "scalearn"


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
    assert run_of("sora", "sora", "glue/rte").select == "last"  # the scheduled run
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
    """As in the scripts; in a run of another length, too, but for MRPC, which has a share."""
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
