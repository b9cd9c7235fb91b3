"""Task, suite and recipe files: all of ours load, names resolve, slips are named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from task_bench import spec_of

from mtl.errors import RequestError
from mtl.report import load_published
from mtl.study import read_study
from mtl.tasks import (
    TaskSpec,
    list_recipes,
    list_suites,
    list_tasks,
    load_recipe,
    load_suite,
    load_task,
    tasks_folder,
)
from mtl.tasks.yamls import catalog

ROOT = Path(__file__).parents[2]
FILES = sorted(path for path in tasks_folder().rglob("*") if path.suffix in {".yaml", ".yml"})
GOOD = """\
id: mine/pair
data: {files: {train: a.csv, validation: b.csv}}
kind: classification
inputs: ["{a}", "{b}"]
labels: [no, yes]
metrics: [accuracy]
"""


def own(folder: Path, monkeypatch: pytest.MonkeyPatch, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setenv("MTL_TASKS", str(folder))
    return folder


def test_every_file_is_found_and_placed() -> None:
    known = catalog()
    groups = (known.tasks, known.suites, known.recipes, known.published, known.studies)
    placed = {path for group in groups for path in group.values()}
    assert placed == set(FILES)
    assert not known.problems
    assert len(known.tasks) >= 15


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(tasks_folder())))
def test_every_file_loads_and_says_how_to_check_it(path: Path) -> None:
    known = catalog()
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# python -m mtl.")
    names = {
        file: name
        for group in (known.tasks, known.suites, known.recipes, known.published, known.studies)
        for name, file in group.items()
    }
    name = names[path]
    if path in known.tasks.values():
        assert first == f"# python -m mtl.tasks check {name}"
        spec = load_task(name)
        assert spec.id == name == f"{path.parent.name}/{path.stem}"
        assert TaskSpec.from_dict(spec.to_dict()) == spec
    elif path in known.suites.values():
        suite = load_suite(name)
        assert suite.name == path.parent.name
        assert load_recipe(suite.recipe).name == suite.recipe
    elif path in known.published.values():
        assert first == f"# python -m mtl.report --published {name}"
        assert load_published(name).name == path.stem
    elif path in known.studies.values():
        assert first == f"# python -m mtl.study plan {name}"
        assert read_study(name).name == path.stem
    else:
        assert load_recipe(name).name == path.stem


def test_lists_are_sorted_and_whole() -> None:
    assert list_tasks() == sorted(catalog().tasks)
    assert {"demo", "glue"} <= set(list_suites())
    assert {"demo", "scalearn"} <= set(list_recipes())


def test_glue_is_the_eight_tasks_of_the_paper() -> None:
    glue = load_suite("glue")
    names = ["rte", "mrpc", "cola", "stsb", "sst2", "qnli", "mnli", "qqp"]  # the reference's order
    assert list(glue.tasks) == [f"glue/{name}" for name in names]
    assert (glue.model, glue.protocol) == ("roberta-base", "scalearn")
    assert "glue/wnli" in list_tasks()


def test_recipes_resolve_patterns_then_names_then_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipes").mkdir()
    own(
        tmp_path / "recipes",
        monkeypatch,
        r="defaults: {lr: 1, a: 1, b: 1, c: 1}\n"
        "methods:\n  scalearn: {a: 3}\n  scalearn*: {lr: 6e-3, a: 2}\n"
        "tasks:\n  scalearn*: {demo/nli: {c: 5}}\n",
    )
    recipe = load_recipe("r")
    assert recipe.settings("scalearn", "demo/nli") == {"lr": 6e-3, "a": 3, "b": 1, "c": 5}
    assert recipe.settings("scalearn++", "demo/entail") == {"lr": 6e-3, "a": 2, "b": 1, "c": 1}
    with pytest.raises(RequestError, match=r"says nothing of method 'fusion'"):
        recipe.settings("fusion", "demo/nli")


def test_names_ids_bare_names_aliases_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own(
        tmp_path,
        monkeypatch,
        pair=GOOD,
        rte=GOOD.replace("mine/pair", "mine/rte"),
        suite="name: mine\ntasks: [mine/pair, mine/rte, super/mrpc]\nmodel: demo\nrecipe: demo\n"
        "protocol: scalearn\naliases: {super/mrpc: glue/mrpc}\n",
    )
    assert load_task("glue/rte").id == load_task("rte", "glue").id == "glue/rte"
    assert load_task("rte", "mine").id == "mine/rte"
    assert load_task("pair").id == "mine/pair"
    assert load_task("super/mrpc").id == load_task("mrpc").id == "glue/mrpc"
    assert load_suite("mine").tasks == ("mine/pair", "mine/rte", "glue/mrpc")
    assert load_task(str(tmp_path / "pair.yaml")).id == "mine/pair"
    with pytest.raises(RequestError, match=r"'rte' is ambiguous: glue/rte, mine/rte"):
        load_task("rte")


@pytest.mark.parametrize(
    ("load", "name", "guess"),
    [
        (load_task, "glue/rts", "'glue/rte'"),
        (load_task, "ential", "'demo/entail'|'entail'"),
        (load_suite, "dmeo", "'demo'"),
        (load_recipe, "scalern", "'scalearn'"),
    ],
)
def test_unknown_names_get_a_guess(load: Any, name: str, guess: str) -> None:
    with pytest.raises(
        RequestError, match=rf"Unknown \w+ {name!r}\. Did you mean ({guess})\? Known"
    ):
        load(name)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("metrics:", "metric:", r"Unknown key 'metric'.*'metrics'"),
        ("kind: classification", "kind: clasification", r"kind.*'classification'"),
        ("[accuracy]", "[acuracy]", r"Unknown metric 'acuracy'.*'accuracy'"),
        ("[accuracy]", "[pearson]", r"'pearson' is for regression"),
        ("[accuracy]", "[]", r"metrics.*must name at least one|lacks"),
        ("[no, yes]", "[no, no]", r"labels holds a name twice"),
        ("[no, yes]", "[no]", r"at least two classes"),
        ("[no, yes]", "yes", r"labels must be a list"),
        ("mine/pair", "pair", r"suite/name"),
        ("mine/pair", "../pair", r"folder name"),
        ('["{a}", "{b}"]', '["{a", "{b}"]', r"inputs holds '\{a'"),
        ('["{a}", "{b}"]', '["a", "{b}"]', r"names no \{column\}"),
        ('["{a}", "{b}"]', '["{a:>3}"]', r"plain column name"),
        ('["{a}", "{b}"]', '["{a}", "{b}", "{c}"]', r"one or two templates, not 3"),
        ("{files: {train: a.csv, validation: b.csv}}", "{file: a.csv}", r"exactly one of"),
        ("{files: {train: a.csv, validation: b.csv}}", "{files: a.csv}", r"map splits to files"),
        ("kind:", "max_length: true\nkind:", r"max_length must be a whole number"),
        ("kind:", "max_length: 4\nkind:", r"at least 8"),
        ("kind:", "kind: regression\nkind:", r"line 4.*'kind' is written twice"),
        ("kind:", "kind: [\nx:", r"no valid YAML"),
        ("kind: classification\n", "", r"lacks 'kind'"),
    ],
)
def test_slips_in_a_task_file_name_file_and_key(
    old: str, new: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "pair.yaml"
    assert GOOD.count(old) == 1
    path.write_text(GOOD.replace(old, new), encoding="utf-8")
    with pytest.raises(RequestError, match=f"(?s){message}") as caught:
        load_task(str(path))
    assert str(path) in str(caught.value)


def test_a_file_named_without_its_ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "pear.yaml").write_text(GOOD, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match=r"a file mine/pear\.yaml: write it with its ending"):
        load_task("mine/pear")


def test_words_of_yaml_stay_words_and_exponents_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "pair.yaml"
    path.write_text(GOOD.replace("[no, yes]", "[no, yes, 1, true]"), encoding="utf-8")
    assert load_task(str(path)).labels == ("no", "yes", "1", "true")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("mine/pair", "mine/pear", r"Unknown task 'mine/pear'.*'mine/pair'"),
        ("protocol: scalearn", "protocol: scaleran", r"protocol 'scaleran'.*'scalearn'"),
        ("model: demo", "modle: demo", r"Unknown key 'modle'.*'model'"),
        ("[mine/pair]", "[mine/pair, mine/pair]", r"names a task twice"),
        ("[mine/pair]", "mine/pair", r"list of task ids"),
        ("model: demo", "model: demo\ntarget: glue/rte", r"none of the suite's tasks"),
    ],
)
def test_slips_in_a_suite(
    old: str, new: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "tasks: [mine/pair]\nmodel: demo\nrecipe: demo\nprotocol: scalearn\n"
    own(tmp_path, monkeypatch, pair=GOOD, mine=text.replace(old, new))
    with pytest.raises(RequestError, match=f"(?s){message}") as caught:
        load_suite("mine")
    assert "mine.yaml" in str(caught.value)


def test_a_broken_file_of_the_user_hides_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own(tmp_path, monkeypatch, pair=GOOD, twin=GOOD, broken="id: [", what="x: 1")
    known = catalog()
    assert {path.stem for path in known.problems} == {"twin", "broken", "what"}
    assert load_task("mine/pair").labels == ("no", "yes")
    with pytest.raises(RequestError, match=r"broken\.yaml"):
        load_task("mine/brokn")


def test_a_changed_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own(tmp_path, monkeypatch, pair=GOOD)
    assert load_task("mine/pair").max_length == 128
    own(tmp_path, monkeypatch, pair=GOOD + "max_length: 64\n")
    assert load_task("mine/pair").max_length == 64


def test_mtl_tasks_must_be_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTL_TASKS", str(tmp_path / "no"))
    with pytest.raises(RequestError, match=r"MTL_TASKS names .*no', which is no folder"):
        list_tasks()


def test_a_spec_says_its_columns_and_outputs() -> None:
    spec = spec_of(inputs=["{w}: {a}", "{w}: {b}"], labels=["x", "y", "z"])
    assert spec.columns == ("w", "a", "b")
    assert (spec.num_outputs, spec.suite, spec.name, spec.headline) == (
        3,
        "own",
        "pair",
        "accuracy",
    )
    assert spec_of(kind="regression", labels=(), metrics=("pearson",)).num_outputs == 1


@pytest.mark.skipif(not (ROOT / "setup.py").is_file(), reason="not a checkout")
def test_a_build_carries_every_task_file_and_nothing_stale(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77")
    stale = tmp_path / "lib" / "mtl" / "_tasks" / "gone.yaml"
    stale.parent.mkdir(parents=True)
    stale.write_text("id: gone/task\n")
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(tmp_path)]
    subprocess.run(
        [*command, "build_py", "--build-lib", str(tmp_path / "lib")],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=120,
    )
    packed = tmp_path / "lib" / "mtl" / "_tasks"
    found = {str(path.relative_to(packed)) for path in packed.rglob("*") if path.is_file()}
    assert found == {
        str(path.relative_to(ROOT / "tasks")) for path in (ROOT / "tasks").rglob("*.yaml")
    }
    said = subprocess.run(
        [sys.executable, "-c", "from mtl.tasks import *; print(tasks_folder(), *list_tasks())"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "lib")},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout.split()
    assert said == [str(packed), *list_tasks()]
