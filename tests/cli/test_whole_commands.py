"""The command of an entry makes the entry again: what the environment said stands in it, too."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_bench import entries, mtl
from pyarrow.json import read_json
from pyarrow.parquet import write_table

from mtl.zoo import open_zoo
from mtl.zoo.entry import again_text


@pytest.fixture
def model(make_tiny: Callable[..., Path], tmp_path: Path) -> Path:
    return make_tiny(tmp_path / "minilm" / "model", "roberta")


def test_what_the_environment_said_stands_in_the_command(
    mini: Path, model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MTL_MODEL", str(model))
    monkeypatch.setenv("MTL_DATA_ROOT", str(tmp_path))
    assert mtl("train", "--suite", "mini", "--task", "mood").code == 0
    (folder,) = entries(mini)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["base"]["id"] == "minilm"
    # its data are files of its own: no mirror was read
    assert manifest["command"] == "python -m mtl.train --suite mini --task mood --model minilm"
    card = (folder / "README.md").read_text()
    assert manifest["command"] in card
    assert "Put in your own path of the model folder minilm" in card
    assert str(tmp_path) not in json.dumps(manifest) + card
    # on this machine it is whole: without the variables it is the same run
    (entry,) = open_zoo(mini).entries()
    typed = again_text(entry).removeprefix("make it again: ")
    monkeypatch.delenv("MTL_MODEL")
    monkeypatch.delenv("MTL_DATA_ROOT")
    shutil.rmtree(folder)
    words = shlex.split(typed)
    assert words[:3] == ["python", "-m", "mtl.train"]
    assert mtl("train", *words[3:]).code == 0
    assert [other.digest for other in open_zoo(mini).entries()] == [entry.digest]


def test_data_of_the_hub_that_came_from_a_mirror_are_said_to(
    mini: Path, suite_folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mirror = tmp_path / "mirror" / "ada" / "mood" / "data"
    mirror.mkdir(parents=True)
    for split, name in (("train", "train"), ("dev", "validation"), ("test", "test")):
        rows = read_json(suite_folder / f"mood_{split}.jsonl")
        write_table(rows, mirror / f"{name}-00000-of-00001.parquet")
    task = tmp_path / "mood.yaml"
    task.write_text(
        'id: own/mood\ndata: {repo: ada/mood}\nkind: classification\ninputs: ["{text}"]\n'
        "labels: [sad, happy]\nmetrics: [accuracy]\nmax_length: 32\n"
    )
    monkeypatch.setenv("MTL_DATA_ROOT", str(tmp_path / "mirror"))
    monkeypatch.setenv("MTL_MODEL", str(model))
    said = mtl("train", "--task", task, "--epochs", "1", "--json")
    assert said.code == 0, said
    (folder,) = entries(mini)
    command = json.loads((folder / "manifest.json").read_text())["command"]
    assert command.endswith("--model minilm --data-root DATA_ROOT")
    assert str(tmp_path) not in command
    card = (folder / "README.md").read_text()
    assert "a mirror of the Hub's datasets (--data-root" in card


def test_an_entry_of_another_name_of_the_base_is_of_the_same_row(
    stocked: Path, tiny: Callable[[str], str], tmp_path: Path
) -> None:
    again = tmp_path / "same-weights" / "model"
    shutil.copytree(tiny("roberta"), again)
    line = ["--suite", "mini", "--task", "mood", "--seeds", "5", "--model", again]
    assert mtl("train", *line).code == 0
    bases = {entry.manifest.base["id"] for entry in open_zoo(stocked).entries()}
    assert bases == {"tiny-roberta", "same-weights"}
    (row,) = mtl("report", "--target", "mood", "--json").json["rows"]
    assert row["seeds"] == [0, 5]
    assert row["base"].startswith("same-weights ")
    (table,) = mtl("report", "--suite", "mini", "--json").json["suites"]
    assert set(table["tasks"]) == {"mini/same", "mini/mood", "mini/shared"}
    assert os.environ["MTL_MODEL"] == tiny("roberta")
