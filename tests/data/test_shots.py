"""Few-shot draws: which rows they are, and which settings they bring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from task_bench import file_task

from mtl.compose import resolve_compose
from mtl.data import load_data
from mtl.engine.settings import RunSettings
from mtl.errors import RequestError
from mtl.runs.settings import Overrides, recipe_layers
from mtl.tasks import load_recipe, load_task
from mtl.tasks.recipes import merged

ROWS = [{"a": f"text {row}", "b": "x", "label": "no" if row % 3 else "yes"} for row in range(200)]


def drawn(folder: Path, **options: Any) -> Any:
    task = file_task(folder, {"train": ROWS, "validation": ROWS[:90]})
    return load_data(task, protocol="scalearn", **options)


def numbers(split: Any) -> list[int]:
    return [int(text.split()[1]) for text in split.texts[0]]


def test_the_reference_draw_is_the_first_rows_of_the_training_part(tmp_path: Path) -> None:
    whole = drawn(tmp_path)
    for shots in (4, 16, 32, 100):
        few = drawn(tmp_path, shots=shots)
        assert numbers(few.splits["train"]) == numbers(whole.splits["train"])[:shots]
        assert few.splits["train"].rows.tolist() == numbers(few.splits["train"])
        assert few.fingerprints["dev"] == whole.fingerprints["dev"]
        assert few.fingerprints["test"] == whole.fingerprints["test"]
        assert (few.shots, few.shot_draw, few.sizes["train"]) == (shots, 0, shots)
        assert f"train: {shots} shots, draw 0" in few.notes


def test_random_draws_are_fixed_nested_and_differ(tmp_path: Path) -> None:
    part = numbers(drawn(tmp_path).splits["train"])
    order = np.random.RandomState(3).permutation(180)
    found = {
        (shots, draw): numbers(drawn(tmp_path, shots=shots, shot_draw=draw).splits["train"])
        for shots in (4, 32)
        for draw in (1, 2, 3)
    }
    assert found[32, 3] == [part[place] for place in order[:32]]
    for draw in (1, 2, 3):
        assert found[4, draw] == found[32, draw][:4]
        assert len(set(found[32, draw])) == 32
        assert set(found[32, draw]) <= set(part)
    assert len({tuple(rows) for rows in found.values()}) == 6


def test_dev_is_cut_and_the_test_is_whole(tmp_path: Path) -> None:
    few = drawn(tmp_path, shots=4, max_dev_samples=7)
    assert (few.sizes["dev"], few.sizes["test"]) == (7, 90)
    few = drawn(tmp_path, shots=4, max_dev_samples=7, max_eval_samples=5)
    assert (few.sizes["dev"], few.sizes["test"]) == (5, 5)


def test_shots_of_one_class_are_a_remark_and_too_few_rows_an_error(tmp_path: Path) -> None:
    few = drawn(tmp_path, shots=1)
    label = "yes" if numbers(few.splits["train"])[0] % 3 == 0 else "no"
    assert f"train: all 1 shots have the label {label!r}" in few.notes
    with pytest.raises(RequestError, match=r"own/pair': --shots 181, but .* only 180 rows"):
        drawn(tmp_path, shots=181)


def test_settings_of_few_shot_runs() -> None:
    """Steps, patience, selection and dev rows of the paper's scripts, at the method's own rate."""
    recipe = load_recipe("scalearn")
    for method, lr in (("pfeiffer", 3e-4), ("scalearn", 6e-3), ("fusion", 5e-5)):
        few = Overrides({"run.shots": 16})
        values = merged(recipe_layers(recipe, method, "glue/rte", few))
        assert values["lr"] == lr
        assert (values["max_steps"], values["batch_size"]) == (1000, 32)
        # 20 idle epochs are 20 steps up to 32 rows and 80 of 100, wherever evaluations are
        run = RunSettings(patience=values["patience"])
        for steps, batches in ((20, 1), (80, 4)):
            assert not run.waited(99, steps - 1, batches)
            assert run.waited(1, steps, batches)
        assert (values["select"], values["max_dev_samples"]) == ("metric", 5000)
        # at most 100 evaluations
        assert values["max_steps"] / values["eval_every"] <= 100
    plain = recipe_layers(recipe, "scalearn", "glue/rte", Overrides({"run.shots": 0}))
    assert merged(plain) == recipe.settings("scalearn", "glue/rte")
    asked = Overrides({"shots": "16", "run.epochs": 3})
    run = resolve_compose(load_task("rte"), "scalearn", recipe, asked)[1]
    assert (run.epochs, run.max_steps, run.eval_every) == (3, 0, 0)


def test_a_recipe_has_few_shot_settings_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        "defaults: {lr: 1.0, patience: 3}\nmethods: {'*': {}}\n"
        "few_shot:\n  defaults: {max_steps: 50}\n"
        "  methods: {scalearn*: {lr: 2.0}}\n  tasks: {scalearn: {demo/entail: {lr: 3.0}}}\n"
    )
    recipe = load_recipe(str(path))
    assert recipe.settings("scalearn", "demo/entail") == {"lr": 1.0, "patience": 3}
    few = recipe.settings("scalearn", "demo/entail", few_shot=True)
    assert (few["lr"], few["max_steps"], few["patience"]) == (3.0, 50, "20 epochs")
    assert recipe.settings("scalearn++", "demo/nli", few_shot=True)["lr"] == 2.0
    path.write_text("few_shot: {default: {max_steps: 50}}\n")
    with pytest.raises(RequestError, match=r"'default' in .*few_shot.*'defaults'"):
        load_recipe(str(path))


def test_settings_that_contradict_each_other() -> None:
    with pytest.raises(RequestError, match=r"shots=4 and max_train_samples=5"):
        RunSettings(shots=4, max_train_samples=5)
    with pytest.raises(RequestError, match=r"shot_draw=1 says which shots"):
        RunSettings(shot_draw=1)
    with pytest.raises(RequestError, match=r"shots=-1 must not be negative"):
        RunSettings(shots=-1)


def test_runs_without_shots_keep_their_hash() -> None:
    assert not {"shots", "shot_draw", "max_dev_samples"} & {*RunSettings().identity()}
    few = RunSettings(shots=4).identity()
    assert few["shots"] == 4
    assert RunSettings(shots=4, shot_draw=1).identity() != few
