"""Several values, several runs: what a grid makes, tells, refuses, and which is best on dev."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_bench import entries, mtl, refused

from mtl.cli.grid import read_grid
from mtl.errors import RequestError
from mtl.runs.settings import parse_set, parse_sets
from mtl.zoo import open_zoo

LINE = ["--suite", "mini", "--task", "mood"]
SHORT = ["--max-train-samples", "32", "--max-steps", "4"]


def test_every_combination_is_a_run_and_the_best_on_dev_is_said(mini: Path) -> None:
    line = [*LINE, *SHORT, "--method", "pfeiffer", "bitfit", "--lr", "1e-3", "3e-2", "--seeds", "0"]
    said = mtl("train", *line, "1", "--json")
    assert said.code == 0, said
    rows = said.json["runs"]
    assert [(row["method"], row["settings"]["lr"], row["seed"]) for row in rows] == [
        (method, lr, seed) for method in ("pfeiffer", "bitfit") for lr in (1e-3, 3e-2)
        for seed in (0, 1)
    ]  # fmt: skip
    assert len(entries(mini)) == 8
    means = {
        key: sum(row["dev"] for row in rows if (row["method"], row["settings"]["lr"]) == key) / 2
        for key in {(row["method"], row["settings"]["lr"]) for row in rows}
    }
    best = {(r["method"], r["settings"]["lr"]) for r in rows if r["best_on_dev"]}
    assert len(best) == 1
    assert means[next(iter(best))] == max(means.values())
    said = mtl("train", *line, "1")
    head, _, first, *_ = said.out.splitlines()
    assert head.split()[:4] == ["task", "method", "settings", "seed"]
    assert "lr=0.001" in first
    assert "mini/mood: best on dev of 4 variants: " in said.out
    assert ", mean of 2 seeds" in said.out
    named = said.out.partition("best on dev of 4 variants")[2].split("(")[1].split(")")[0]
    assert named in {row["ref"] for row in rows if row["best_on_dev"]}
    assert mtl("zoo", "show", named).code == 0
    picked = mtl("report", "--suite", "mini", "--pick", "best-dev", "--json").json["rows"]
    assert {row["method"]: row["picked"] for row in picked} == {"pfeiffer": 2, "bitfit": 2}
    listed = mtl("zoo", "show", "mood/pfeiffer/seed0")
    refused(listed, "is ambiguous", *(f"lr={lr}" for lr in (0.001, 0.03)), "dev accuracy 0.")
    dev = {row["ref"]: row["dev"] for row in mtl("zoo", "ls", "--json").json["entries"]}
    assert dev == {row["ref"]: row["dev"] for row in rows}


def test_a_point_of_a_grid_is_the_run_of_its_own_line(mini: Path) -> None:
    def hashes(*argv: object) -> list[str]:
        said = mtl("train", *LINE, *argv, "--dry-run", "--json")
        assert said.code == 0, said
        return [row["runhash"] for row in said.json["runs"]]

    grid = hashes("--lr", "1e-3", "3e-3", "--set", "reduction_factor=2", "8", "dropout=0")
    alone = [
        hashes("--lr", lr, "--set", f"reduction_factor={r}", "dropout=0")[0]
        for lr in ("1e-3", "3e-3")
        for r in (2, 8)
    ]
    assert grid == alone
    lora = ["--method", "lora", "--set"]
    assert len(hashes(*lora, "modules=q,v")) == 1
    assert hashes(*lora, "modules=q,v", "q") == [
        *hashes(*lora, "modules=q,v"),
        *hashes(*lora, "modules=q"),
    ]


def test_several_values_in_a_file_and_over_it(mini: Path, tmp_path: Path) -> None:
    config = tmp_path / "grid.yaml"
    config.write_text("task: [mood]\nlr: [1e-3, 3e-3]\nset: [dropout=0, '0.1']\nmethod: pfeiffer\n")

    def count(*argv: object) -> int:
        said = mtl("train", "--suite", "mini", "--config", config, *argv, "--dry-run", "--json")
        assert said.code == 0, said
        return len(said.json["runs"])

    assert count() == 4
    assert count("--lr", "1e-2") == 2
    assert count("--set", "lr=1e-2") == 2
    assert count("--set", "run.lr=1e-2", "method.dropout=0") == 1
    assert count("--method", "pfeiffer", "houlsby") == 8


def test_compositions_and_joint_models_make_grids(stocked: Path) -> None:
    line = ["--target", "same", "--method", "average", "scalearn", "--lr", "1e-3", "3e-3", *SHORT]
    said = mtl("compose", *line[:-4], "--max-steps", "4", "--json")
    assert said.code == 0, said
    assert len(said.json["runs"]) == len({row["digest"] for row in said.json["runs"]}) == 4
    assert sum(row["best_on_dev"] for row in said.json["runs"]) == 1
    assert len(said.json["plan"]["sources"]) == 1
    said = mtl("joint", "--suite", "mini", "--method", "adapter-m", "--lr", "1e-3", "3e-3",
               "--max-steps", "4", "--json")  # fmt: skip
    assert said.code == 0, said
    assert [row["settings"] for row in said.json["runs"]] == [{"lr": 1e-3}, {"lr": 3e-3}]
    assert sum(row["best_on_dev"] for row in said.json["runs"]) == 1


def test_missing_sources_of_a_grid_are_trained_once(mini: Path) -> None:
    line = ["--target", "same", "--lr", "1e-3", "3e-3", "--max-steps", "4", "--train-missing"]
    said = mtl("compose", *line, "--json")
    assert said.code == 0, said
    assert [row["task"] for row in said.json["trained"]] == [
        "mini/mood",
        "mini/shared",
        "mini/same",
    ]
    assert [row["status"] for row in said.json["runs"]] == ["done", "done"]


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["--lr", "1e-3", "0.001"], ["--lr: 0.001 and 0.001 are the same value"]),
        (["--method", "pfeiffer", "pfeiffer"], ["--method: pfeiffer and pfeiffer"]),
        (["--set", "dropout=0", "0.0"], ["--set dropout: 0 and 0.0 are the same value"]),
        (["--set", "lr=1", "lr=2"], ["--set names lr twice", "--set lr=ONE OTHER"]),
        (["--lr", "1e-3,3e-3"], ["--lr takes a number", "several stand with spaces, as --lr ONE"]),
        (["--set", "lr=1e-3,3e-3"], ["lr='1e-3,3e-3'", "--set lr=ONE OTHER"]),
        (["--set", "placement=[pfeiffer,houlsby]"], ["must be text", "--set placement=ONE OTHER"]),
        (["--lr", "1e-3", "--lr", "3e-3"], ["--lr is given twice", "after one --lr"]),
        (
            ["--eval-batch-size", "8", "16"],
            ["eval_batch_size=8 and eval_batch_size=16 are the same"],
        ),
        (["--epochs", "1", "2", "--max-steps", "4"], ["with max_steps none of them has an effect"]),
        (["--method", "pfeiffer", "bitfit", "--set", "dropout=0"], ["'dropout'", "'bitfit'"]),
        (["--method", "pfeiffer", "pfeifer"], ["Did you mean 'pfeiffer'?"]),
        (["--set", "epochs=3", "shuffle"], ["epochs='shuffle'", "must be a whole number"]),
    ],
)
def test_lists_that_make_no_sense(argv: list[str], parts: list[str], mini: Path) -> None:
    refused(mtl("train", *LINE, *argv), *parts)
    assert not entries(mini)


def test_where_one_value_is_taken(stocked: Path) -> None:
    probe = ["compose", "--target", "same", "--sources", "mood", "--probe", "0", "1"]
    refused(mtl(*probe, "--lr", "1e-3", "3e-3"), "lr has 2 values (0.001, 0.003)", "--probe")
    measure = ["graph", "measure", "--targets", "same", "--set", "lr=1", "2"]
    refused(mtl(*measure), "lr has 2 values (1, 2)", "a measurement is of one setting")
    count = ["methods", "count", "--method", "pfeiffer", "--set", "bottleneck=8", "24"]
    refused(mtl(*count), "--set bottleneck=8 24: one value is taken here")


def test_words_of_set() -> None:
    assert parse_sets(["a=1", "2", "b=q,v", "c="]) == {"a": [1, 2], "b": ["q,v"], "c": [""]}
    assert parse_set(["a=1", "b=x"]) == {"a": 1, "b": "x"}
    with pytest.raises(RequestError, match="takes key=value, not '3'"):
        parse_sets(["3", "a=1"])


def test_flags_stand_below_set_whatever_the_spelling() -> None:
    from mtl.cli.common import add_methods, make_parser

    parser = make_parser("mtl.train", "")
    add_methods(parser, "", "pfeiffer")
    options = parser.parse_args(["--lr", "1", "2", "--set", "lr=3", "method.dropout=0"])
    grid = read_grid(options, parser)
    (point,) = grid.points
    assert point.overrides.values == {"lr": 3, "method.dropout": 0}
    assert point.overrides.places == {"run.lr": "--lr", "lr": "--set", "method.dropout": "--set"}


def test_a_grid_on_a_tracker_is_a_run_each(
    mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    line = [*LINE, *SHORT, "--lr", "1e-3", "3e-3", "--track", "tensorboard", "--json"]
    said = mtl("train", *line)
    assert said.code == 0, said
    assert len({path.parent for path in tmp_path.rglob("events.out.tfevents*")}) >= 2
    assert len(open_zoo(mini).entries()) == 2
