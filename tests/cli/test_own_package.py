"""Other packages add methods, compositions, scores and tasks: one is installed and used."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_bench import ROOT, TARGET, mtl, refused

from mtl.errors import RequestError
from mtl.registry import Plugin, PluginError, Registry, plugins
from mtl.zoo import open_zoo

EXAMPLE = ROOT / "examples" / "own-package"


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the example, from a wheel that setuptools built."""
    root = tmp_path_factory.mktemp("own")
    shutil.copytree(EXAMPLE, root / "source")
    command = "install --quiet --no-index --no-build-isolation --no-deps --no-compile --target"
    done = subprocess.run(
        [sys.executable, "-m", "pip", *command.split(), root / "site", root / "source"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return root / "site"


def package(folder: Path, name: str, points: str, version: str = "0.3") -> None:
    """What pip leaves of a package in ``folder``: its metadata, with these entry points."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(points)


@pytest.fixture
def path(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Change the path with it; packages are looked for again before and after the test."""
    from mtl.compose import COMPOSITIONS
    from mtl.graph.scores import SCORES
    from mtl.joint import JOINT
    from mtl.methods import METHODS

    registries = (METHODS, COMPOSITIONS, JOINT, SCORES)
    plugins.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    plugins.cache_clear()
    for registry in registries:
        registry._foreign.clear()


def test_a_package_brings_methods_a_composition_a_score_and_a_task(
    site: Path, mini: Path, path: pytest.MonkeyPatch
) -> None:
    from mtl.methods import METHODS

    path.syspath_prepend(str(site))
    common = ("--recipe", "example", "--set", "epochs=1")
    said = mtl("train", "--task", "example/animals", "--method", "tanh", *common, "--json")
    assert said.code == 0, said
    zoo = open_zoo()
    source = zoo.get(said.json["runs"][0]["ref"])
    assert source.manifest.versions["mtl-example"] == "1.2"
    assert source.manifest.method_settings == {"bottleneck": 8, "placement": "pfeiffer"}

    said = mtl(
        *("compose", "--target", TARGET, "--suite", "mini", "--method", "gain"),
        *("--sources", "example/animals", "mini/mood", "--source-method", "tanh"),
        *("--train-missing", *common, "--json"),
    )
    assert said.code == 0, said
    entry = zoo.get(said.json["runs"][-1]["ref"])
    assert entry.manifest.kind == "composition"
    assert len(entry.manifest.parents) == 2
    assert entry.manifest.versions["mtl-example"] == "1.2"

    said = mtl(
        *("joint", "--suite", "mini", "--task", "mini/mood", "example/animals"),
        *("--method", "tanh-m", *common, "--json"),
    )
    assert said.code == 0, said
    joint = zoo.get(said.json["runs"][0]["ref"])
    assert joint.manifest.versions["mtl-example"] == "1.2"
    again = mtl("zoo", "verify", entry.ref, source.ref, joint.ref)
    assert again.code == 0, again
    assert mtl("zoo", "fsck").code == 0

    said = mtl(
        *("graph", "suggest", "--target", TARGET, "--suite", "mini", "--sources"),
        *("example/animals", "--source-method", "tanh", "--scores", "lengths", "tfidf", "--json"),
    )
    assert said.code == 0, said
    (values,) = said.json["values"].values()
    assert values["lengths"] <= 0

    (mood,) = zoo.entries(task="mini/mood", method="tanh")
    # what the method came from is gone: the message says what is missing
    sys.path.remove(str(site))
    plugins.cache_clear()
    METHODS._foreign.clear()
    for name in [name for name in sys.modules if name.split(".")[0] == "mtl_example"]:
        del sys.modules[name]
    said = mtl("zoo", "verify", mood.ref)
    assert said.code != 0
    assert "came from package mtl-example 1.2" in said.out + said.err


def test_names_are_known_without_importing_the_package(site: Path) -> None:
    code = (
        "import sys\nfrom mtl.methods import METHODS\nfrom mtl.compose import COMPOSITIONS\n"
        "from mtl.joint import JOINT\n"
        "from mtl.tasks import list_tasks, load_recipe\n"
        "assert 'tanh' in METHODS and 'gain' in COMPOSITIONS.names() and 'tanh-m' in JOINT\n"
        "assert 'example/animals' in list_tasks() and load_recipe('example').names('gain')\n"
        "METHODS.get('pfeiffer')\n"
        "assert not [name for name in sys.modules if name.startswith('mtl_example')]\n"
        "METHODS.get('tanh')\n"
        "assert 'mtl_example.tanh' in sys.modules and 'torch' not in sys.modules\n"
    )
    environment = {"PYTHONPATH": f"{ROOT}:{site}", "PATH": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_package_that_fails_to_import_stops_nobody_else(
    tmp_path: Path, path: pytest.MonkeyPatch
) -> None:
    package(
        tmp_path,
        "mtl-broken",
        "[mtl.methods]\nworks-not = broken_of_tests:METHOD\nno-method = os:sep\n"
        "[mtl.scores]\nnowhere = no_such_module_of_tests:SCORE\n",
    )
    (tmp_path / "broken_of_tests.py").write_text("raise OSError('libfoo.so is missing')\n")
    path.syspath_prepend(str(tmp_path))
    said = mtl("methods", "ls")
    assert said.code == 0
    assert "pfeiffer  (stage 1)" in said.out
    assert "works-not  (cannot be used)" in said.out
    listed = json.loads(mtl("methods", "ls", "--json").out)
    assert "works-not" not in {row["method"] for row in listed["methods"]}
    reasons = {row["name"]: row["reason"] for row in listed["unavailable"]}
    assert "libfoo.so is missing" in reasons["works-not"]
    assert "must be a Method, got '/'" in reasons["no-method"]
    refused(
        mtl("train", "--task", "demo/nli", "--method", "works-not"),
        *("package mtl-broken 0.3", "broken_of_tests:METHOD", "OSError: libfoo.so is missing"),
    )
    counted = mtl("methods", "count", "--method", "all", "--model", "roberta-base")
    assert counted.code == 0
    assert "works-not" not in counted.out

    from mtl.compose.suggest import chosen_scores

    assert chosen_scores(())[0].name == "tfidf"
    with pytest.raises(RequestError, match=r"package mtl-broken 0.3.*no_such_module_of_tests"):
        chosen_scores(["nowhere"])


def test_a_name_that_is_taken_names_both(tmp_path: Path, path: pytest.MonkeyPatch) -> None:
    for name in ("mtl-one", "mtl-two"):
        package(tmp_path, name, "[mtl.methods]\ntwice = json:dumps\n[mtl.scores]\nlogme = a:b\n")
    path.syspath_prepend(str(tmp_path))
    from mtl.graph.scores import SCORES
    from mtl.methods import METHODS, find_method

    assert METHODS.names().count("twice") == 1
    with pytest.raises(PluginError, match=r"'twice' is registered by mtl-one 0.3 and by mtl-two"):
        find_method("twice")
    with pytest.raises(PluginError, match=r"'logme' is registered by mtl itself and by mtl-one"):
        SCORES.get("logme")
    assert find_method("pfeiffer").name == "pfeiffer"
    assert "logme" not in SCORES.usable()
    assert "knn" in SCORES.usable()


def test_a_package_may_bring_what_we_cannot_reproduce_and_must_keep_its_names(
    tmp_path: Path, path: pytest.MonkeyPatch
) -> None:
    package(
        tmp_path,
        "mtl-renamed",
        "[mtl.methods]\nalora = renamed_of_tests:METHOD\nother = renamed_of_tests:METHOD\n"
        "a/b = renamed_of_tests:METHOD\n",
    )
    (tmp_path / "renamed_of_tests.py").write_text(
        "from dataclasses import replace\nfrom mtl.methods.pfeiffer import METHOD\n"
        "METHOD = replace(METHOD, name='alora')\n"
    )
    path.syspath_prepend(str(tmp_path))
    from mtl.methods import find_method

    assert find_method("alora").name == "alora"
    with pytest.raises(PluginError, match="its name is 'alora', the entry point's 'other'"):
        find_method("other")
    with pytest.raises(PluginError, match="'a/b' cannot be used as a folder name"):
        find_method("a/b")


TASK = (
    "id: {id}\ndata: {{demo: nli}}\nkind: classification\ninputs: ['{{a}}']\nmetrics: [accuracy]\n"
)


def test_tasks_of_packages_stand_behind_ours_and_conflicts_are_said(
    tmp_path: Path, path: pytest.MonkeyPatch
) -> None:
    for name, task in (("one", "own/x"), ("two", "own/x"), ("three", "demo/nli")):
        package(tmp_path, f"mtl-{name}", f"[mtl.tasks]\nany = {name}_of_tests.inner\n")
        (tmp_path / f"{name}_of_tests" / "inner").mkdir(parents=True)
        (tmp_path / f"{name}_of_tests" / "__init__.py").write_text("raise OSError\n")
        (tmp_path / f"{name}_of_tests" / "inner" / "t.yaml").write_text(TASK.format(id=task))
    package(tmp_path, "mtl-four", "[mtl.tasks]\nany = four_of_tests\n")
    path.syspath_prepend(str(tmp_path))
    said = mtl("tasks", "ls")
    assert "Package mtl-four 0.3 registers task files in four_of_tests" in said.out + said.err
    refused(
        mtl("train", "--task", "own/x", "--dry-run"),
        *("mtl-one 0.3", "mtl-two 0.3", "both define the task 'own/x'"),
    )
    refused(
        mtl("train", "--task", "demo/nli", "--dry-run"),
        "mtl-three 0.3",
        "both define the task 'demo/nli'",
    )
    refused(mtl("train", "--task", "own/y", "--dry-run"), "four_of_tests")
    from mtl.tasks import load_task

    assert load_task("demo/entail").id == "demo/entail"


def test_metadata_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata

    asked = []
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: asked.append(group) or ())
    plugins.cache_clear()
    registry: Registry[str] = Registry("thing", group="mtl.things-of-tests")
    registry.add("one", "json:dumps")
    assert registry.names() == ["one"]
    assert "two" not in registry
    assert registry.get("one") is json.dumps  # type: ignore[comparison-overlap]
    assert asked == ["mtl.things-of-tests"]
    plugins.cache_clear()


def test_the_example_is_what_its_metadata_say(site: Path, path: pytest.MonkeyPatch) -> None:
    path.syspath_prepend(str(site))
    assert plugins("mtl.scores") == (
        Plugin("lengths", "mtl_example.lengths:SCORE", "mtl-example", "1.2"),
    )
