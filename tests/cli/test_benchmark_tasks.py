"""Every task of SuperGLUE, HumSet and SQuAD on fixtures, from the command line into the zoo.

Storing loads each entry into a fresh encoder and repeats the test: ``verified`` says that what was
saved answers as what was trained.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import mirror_bench
import pytest
from cli_bench import entries, mtl

TASKS = {
    "superglue/boolq": ("accuracy", 8),
    "superglue/cb": ("accuracy", 8),
    "superglue/copa": ("accuracy", 8),
    "superglue/multirc": ("f1", 8),
    "superglue/record": ("token_f1", 8),
    "superglue/wic": ("accuracy", 8),
    "superglue/wsc": ("accuracy", 8),
    "humset/sectors": ("macro_f1", 8),
    "humset/pillars_1d": ("macro_f1", 8),
    "humset/pillars_2d": ("macro_f1", 8),
    "humset/subpillars_1d": ("macro_f1", 8),
    "humset/subpillars_2d": ("macro_f1", 8),
    "squad/squad": ("token_f1", 8),
}


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mirror_bench.write_mirror(tmp_path_factory.mktemp("mirror"))


@pytest.mark.parametrize("task", TASKS)
def test_a_task_trains_and_what_is_stored_answers_the_same(
    task: str, mirror: Path, tiny: Callable[[str], str], tmp_path: Path
) -> None:
    kind = "xlm-roberta" if task.startswith("humset") else "roberta"
    said = mtl(
        *("train", "--task", task, "--model", tiny(kind), "--data-root", mirror, "--json"),
        *("--set", "max_steps=2", "batch_size=8", "eval_batch_size=5"),
    )
    assert said.code == 0, said.err
    (row,) = said.json["runs"]
    metric, count = TASKS[task]
    assert (row["metric"], row["n"], row["steps"]) == (metric, count, 2)
    (entry,) = entries(tmp_path / "zoo")
    manifest = json.loads((entry / "manifest.json").read_text())
    assert manifest["verified"]["max_logit_difference"] == 0
    assert manifest["verified"]["equal_predictions"] == 1
    assert manifest["metrics"]["test"][metric]["n"] == count
    assert manifest["task"]["num_outputs"] == {"cb": 3, "copa": 1}.get(
        task.split("/")[1], len(manifest["task"]["labels"]) or 2
    )
    again = mtl(
        *("train", "--task", task, "--model", tiny(kind), "--data-root", mirror, "--json"),
        *("--set", "max_steps=2", "batch_size=8", "eval_batch_size=5"),
    )
    assert again.json["runs"][0]["status"] == "skipped"


@pytest.mark.parametrize("recipe", ["scalearn", "reference"])
def test_copa_composes_with_the_head_of_the_recipe(
    recipe: str, mirror: Path, make_tiny: Callable[..., Path], tmp_path: Path
) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    # A checkpoint without pooler, as RoBERTa's is.
    model = make_tiny(tmp_path / "tiny", "roberta")
    weights = model / "model.safetensors"
    with safe_open(weights, framework="pt") as stream:
        about = stream.metadata()
    kept = {name: value for name, value in load_file(weights).items() if "pooler" not in name}
    save_file(kept, weights, about)
    line = ["--model", model, "--data-root", mirror, "--recipe", recipe, "--json"]
    few = ["--set", "max_steps=2", "batch_size=8"]
    said = mtl("train", "--suite", "superglue", "--task", "copa", "cb", *line, *few)
    assert said.code == 0, said.err
    sources = ["--sources", "copa", "cb"]
    said = mtl("compose", "--suite", "superglue", "--target", "copa", *sources, *line, *few)
    assert said.code == 0, said.err
    (entry,) = [path for path in entries(tmp_path / "zoo") if "scalearn" in path.parts]
    manifest = json.loads((entry / "manifest.json").read_text())
    assert manifest["verified"]["max_logit_difference"] == 0
    omega = 2 * 2 * 48
    head = 48 + 1 if recipe == "reference" else 48 * 48 + 48 + 48 + 1
    assert manifest["training"]["trainable_parameters"] == omega + head


def test_show_gives_every_encoding_of_a_row(mirror: Path, tiny: Callable[[str], str]) -> None:
    line = ["--model", tiny("roberta"), "--data-root", mirror, "-n", "2", "--json"]
    copa = mtl("tasks", "show", "copa", *line).json["rows"][0]
    assert len(copa["encodings"]) == 2
    assert all(tokens[0] == "<s>" and tokens[-1] == "</s>" for tokens in copa["encodings"])
    record = mtl("tasks", "show", "record", *line).json["rows"][1]
    (tokens,) = record["encodings"]
    assert tokens.count("</s>") == 2
    assert record["label"] in {"wrong", "right"}
    squad = mtl("tasks", "show", "squad", *line).json["rows"]
    assert max(len(row["encodings"]) for row in squad) > 1
    assert squad[0]["texts"][1][slice(*squad[0]["label"])].startswith("red ")


@pytest.mark.parametrize("task", ["copa", "record", "multirc", "squad", "humset/sectors"])
def test_check_reads_every_kind(task: str, mirror: Path, tiny: Callable[[str], str]) -> None:
    line = ["--model", tiny("roberta"), "--data-root", mirror, "--json"]
    said = mtl("tasks", "check", task, *line)
    assert said.json["tasks"][0]["splits"][0]["rows"] > 0
