"""What is told before anything trains, and the file that makes the same runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_bench import entries, mtl, refused

from mtl.engine.folder import RunFolder
from mtl.zoo import open_zoo

LINE = ["--suite", "mini", "--task", "mood"]


def test_one_block_tells_what_runs_and_who_said_so(
    mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MTL_QUIET")
    config = tmp_path / "run.yaml"
    config.write_text("epochs: 1\nset: [dropout=0.1]\n")
    line = [*LINE, "--config", config, "--lr", "1e-3", "--set", "bottleneck=4"]
    said = mtl("train", *line)
    assert said.code == 0, said
    block = said.err.split("\n\n")[0]
    (entry,) = open_zoo(mini).entries()
    for part in (
        f"{entry.manifest.base['fingerprint'][:8]}, on cpu, fp32",
        "task      mini/mood: 96 train, 32 dev, 40 test rows, split by official",
        "--lr: lr=0.001",
        f"--config {config}: epochs=1, dropout=0.1",
        "--set: bottleneck=4",
        "recipe mini: batch_size=16, eval_batch_size=64,",
        "default: max_steps=0",
        "seed 0: new",
        "unknown, 6 steps at most (no finished run of pfeiffer on mini/mood with this base",
    ):
        assert part in " ".join(block.split()) or part in block, (part, block)
    again = mtl("train", *line).err.split("\n\n")[0]
    assert f"seed 0: already in the zoo, {entry.ref}" in again
    assert "nothing to train" in again
    other = mtl("train", *line, "--seeds", "1", "2", "--dry-run")
    count = f"{entry.manifest.training['trainable_parameters']:,}"
    assert f"method    pfeiffer, {count} parameters" in other.out
    assert "seeds 1 2: 2 new" in other.out
    assert "12 steps at most, as 1 run of pfeiffer on mini/mood took" in other.out
    assert other.err == ""
    told = mtl("train", *line, "--seeds", "1", "2", "--dry-run", "--json").json["plan"]
    assert told["settings"]["lr"] == {"value": 1e-3, "from": "--lr"}
    assert told["runs"] == {"done": 0, "interrupted": 0, "missing": 2}
    assert told["seconds"] == pytest.approx(2 * entry.manifest.training["seconds"], abs=0.1)
    few = mtl("train", *LINE, "--shots", "16", "--dry-run", "--json").json["plan"]["settings"]
    assert few["max_steps"] == {"value": 1000, "from": "few-shot"}


def test_tables_of_a_plan_fit_the_terminal(
    mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["train", "--suite", "mini", "--task", "mood", "same", "--lr", "1e-3", "1e-2"]
    whole = mtl(*line, "--dry-run").out
    refs = [word for word in whole.split() if word.startswith("tiny-")]
    assert len(refs) == 4
    monkeypatch.setenv("COLUMNS", "90")
    narrow = mtl(*line, "--dry-run").out
    tables = [part for part in narrow.split("\n\n") if part.startswith("task ")]
    assert len(tables) > 2
    assert max(len(line) for part in tables for line in part.splitlines()) <= 90
    assert max(map(len, whole.splitlines())) > 90
    assert [word for word in narrow.split() if word.startswith("tiny-")] == refs
    study = tmp_path / "study.yaml"
    study.write_text("suite: mini\nseeds: [0, 1]\ntrain: [{method: pfeiffer}, {method: lora}]\n")
    monkeypatch.setenv("COLUMNS", "60")
    plan = mtl("study", "plan", study).out
    tables = [part for part in plan.split("\n\n") if part.lstrip().startswith("stage ")]
    assert len(tables) > 1
    assert max(len(line) for part in tables for line in part.splitlines()) <= 60


def test_a_killed_run_says_where_it_goes_on(mini: Path, tmp_path: Path) -> None:
    import torch

    (row,) = mtl("train", *LINE, "--dry-run", "--json").json["runs"]
    (there,) = mtl("train", *LINE, "--dry-run", "--json").json["plan"]["variants"]
    assert (row["state"], there["steps"]) == ("missing", 12)
    runs = tmp_path / "runs"
    folder = RunFolder(runs / _runhash(mini))
    folder.save_point({"train:x": torch.zeros(2)}, {"step": 7})
    said = mtl("train", *LINE, "--dry-run")
    assert "seed 0: resumed at step 7 of 12" in said.out
    assert "5 steps at most" in said.out
    (row,) = mtl("train", *LINE, "--dry-run", "--json").json["runs"]
    assert (row["state"], row["step"]) == ("interrupted", 7)
    folder.point.write_bytes(b"damaged")
    assert "resumed at step ? of 12" in mtl("train", *LINE, "--dry-run").out


def _runhash(zoo: Path) -> str:
    """The whole hash of the run of :data:`LINE`."""
    from mtl.backbone import load_backbone
    from mtl.runs import Overrides, open_workspace
    from mtl.runs.context import chosen_model, suite_of
    from mtl.tasks import load_recipe, load_task
    from mtl.train import plan_train

    suite = suite_of("mini", [])
    (run,) = plan_train(
        [load_task("mini/mood")],
        suite=suite,
        method="pfeiffer",
        seeds=[0],
        backbone=load_backbone(chosen_model(None, suite)),
        recipe=load_recipe("mini"),
        protocol="official",
        overrides=Overrides({}),
        workspace=open_workspace(zoo=zoo),
    )
    return run.runhash


WEIGHTS = "weights=mini/mood:0.3,mini/shared:0.5,mini/same:0.2"
SAME = [
    ["train", "--suite", "mini", "--seeds", "0", "3"],
    ["train", *LINE, "--shots", "16", "--shot-draw", "1"],
    ["train", *LINE, "--lr", "1e-3", "3e-3", "--set", "bottleneck=8", "24", "activation=gelu"],
    ["train", *LINE, "--method", "pfeiffer", "bitfit", "--patience", "2 epochs"],
    ["train", *LINE, "--method", "lora", "--recipe", "none", "--set", "modules=q,v", "q"],
    ["train", *LINE, "--select", "last", "--max-steps", "7", "--protocol", "official"],
    ["compose", "--target", "same"],
    ["compose", "--target", "same", "--without-own", "--method", "average", "fusion"],
    ["compose", "--target", "same", "--method", "soup", "--set", WEIGHTS],
    ["compose", "--target", "same", "--sources", "mood", "shared", "--probe", "0", "1"],
    ["joint", "--suite", "mini", "--method", "adapter-m", "--lr", "1e-3", "3e-3"],
]


@pytest.mark.parametrize("argv", SAME, ids=lambda argv: " ".join(argv))
def test_the_printed_file_makes_the_same_runs(
    argv: list[str], stocked: Path, tmp_path: Path
) -> None:
    command, *line = argv
    said = mtl(command, *line, "--print_config")
    assert said.code == 0, said
    assert said.err == ""
    config = tmp_path / "resolved.yaml"
    config.write_text(said.out)
    first = mtl(command, *line, "--dry-run", "--json").json["runs"]
    again = mtl(command, "--config", config, "--dry-run", "--json").json["runs"]
    assert [row["runhash"] for row in again] == [row["runhash"] for row in first]
    assert mtl(command, "--config", config, "--print-config").code == 0


def test_recipes_exceptions_stay_the_recipes(mini: Path, tmp_path: Path) -> None:
    """Steps of one task, epochs of the others: as overrides they would undo each other."""
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "extends: mini\nmethods: {pfeiffer: {}, adapter-m: {}}\n"
        "tasks:\n  pfeiffer: {mini/mood: {max_steps: 5}}\n"
        "  adapter-m: {mini/mood: {max_train_samples: 32}}\n"
    )
    for command, more in (("train", []), ("joint", ["--method", "adapter-m"])):
        line = ["--suite", "mini", "--recipe", recipe, *more]
        said = mtl(command, *line, "--print_config")
        assert said.code == 0, said
        (tmp_path / "resolved.yaml").write_text(said.out)
        first = mtl(command, *line, "--dry-run", "--json").json["runs"]
        config = ["--config", tmp_path / "resolved.yaml", "--dry-run", "--json"]
        assert mtl(command, *config).json["runs"] == first
    assert "# as the recipe says for each task or method: " in said.out


def test_a_file_is_printed_only_of_what_is_known(mini: Path) -> None:
    line = ["--target", "same", "--train-missing"]
    refused(mtl("compose", *line, "--print-config"), "the zoo lacks sources", "--dry-run")
    assert not entries(mini)


def test_missing_sources_say_which_flags_they_share(
    mini: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["--target", "same", "--lr", "1e-2", "--max-train-samples", "32", "--train-missing"]
    said = mtl("compose", *line, "--dry-run")
    assert said.code == 0, said
    assert "What else was set is the composition's alone: lr (--lr)." in said.out
    assert "only the target's own adapter shares max_train_samples (--max-train" in said.out
    lines = [text.split() for text in said.out.splitlines() if text.startswith("mini/")]
    assert ["mini/same", "32"] in [words[:2] for words in lines]
    assert ["mini/mood", "96"] in [words[:2] for words in lines]
    monkeypatch.delenv("MTL_QUIET")
    said = mtl("compose", *line, "--epochs", "1", "--method", "average")
    assert said.code == 0, said
    assert "epochs (--epochs)" in said.err
    assert "then average on mini/same." in said.err
    assert "sources   3: mini/mood:pfeiffer/seed0-" in said.err


def test_a_plan_says_what_of_the_rows_is_unusual(mini: Path, tmp_path: Path) -> None:
    rows = [f"old cat {n},{'ab'[n % 2]}\n" for n in range(40)]
    (tmp_path / "train.csv").write_text("text,label\n" + "".join(rows))
    (tmp_path / "test.csv").write_text("text,label\nbig bird,a\nsmall bird,d\nlast bird,d\n")
    (tmp_path / "own.yaml").write_text(
        "id: my/own\ndata: {files: {train: train.csv, test: test.csv}}\nkind: classification\n"
        "inputs: ['{text}']\nlabel_column: label\nlabels: [a, b, d]\nmetrics: [accuracy]\n"
        "max_length: 32\nstratify: false\n"
    )
    line = ["--task", tmp_path / "own.yaml", "--recipe", "none", "--dry-run"]
    unseen = "test: 2 of 3 rows have a label that no training row has: 'd'"
    assert f"my/own: {unseen}" in mtl("train", *line).out
    said = mtl("train", *line, "--shots-per-class", "2", "--json").json["plan"]["tasks"]
    assert said[0]["notes"][:2] == [
        "train: 2 shots per class, draw 0",
        "train: fewer than 2 rows of 'd' (0)",
    ]
    assert unseen in said[0]["notes"]
    assert mtl("train", *LINE, "--dry-run", "--json").json["plan"]["tasks"][0]["notes"] == []
