"""The tiny suite, a tiny encoder, and a zoo of its sources, trained once, copied for each test."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_bench import TARGET, mtl, write_suite


@pytest.fixture(scope="session")
def suite_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_suite(tmp_path_factory.mktemp("suite") / "mini")


@pytest.fixture(scope="session")
def trained(
    suite_folder: Path, tiny: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A zoo with the pfeiffer adapters of all three tasks, seed 0; do not change it."""
    root = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MTL_TASKS", str(suite_folder))
        patch.setenv("MTL_CACHE", str(root / "cache"))
        places = ["--zoo", root / "zoo", "--runs", root / "runs"]
        said = mtl("train", "--suite", "mini", "--model", tiny("roberta"), *places, "--json")
    assert said.code == 0, said
    return root / "zoo"


@pytest.fixture
def mini(
    suite_folder: Path, tiny: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Path:
    """The suite and its encoder are what commands use; returns the (empty) zoo of the test."""
    monkeypatch.setenv("MTL_TASKS", str(suite_folder))
    monkeypatch.setenv("MTL_MODEL", tiny("roberta"))
    return tmp_path / "zoo"


@pytest.fixture
def stocked(mini: Path, trained: Path) -> Path:
    """The zoo of the test, with the sources in it."""
    shutil.copytree(trained, mini)
    return mini


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the test, in which commands run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def compositions(
    trained: Path,
    suite_folder: Path,
    tiny: Callable[[str], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A zoo with a composition of all three sources and one of `mood` alone; do not change it."""
    root = tmp_path_factory.mktemp("composed")
    shutil.copytree(trained, root / "zoo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MTL_TASKS", str(suite_folder))
        patch.setenv("MTL_MODEL", tiny("roberta"))
        patch.setenv("MTL_CACHE", str(root / "cache"))
        places = ["--zoo", root / "zoo", "--runs", root / "runs"]
        line = ["--target", TARGET, "--epochs", "1", "--json", *places]
        assert mtl("compose", *line, "--seeds", "0", "1").code == 0
        single = ["--sources", "mood", "--method", "average"]
        assert mtl("compose", *line, *single).code == 0
    return root


@pytest.fixture
def composed(mini: Path, compositions: Path) -> Path:
    """The zoo of the test, with those compositions in it and their evidence beside it."""
    shutil.copytree(compositions / "zoo", mini)
    shutil.copytree(compositions / "zoo.graph", mini.with_name("zoo.graph"))
    return mini
