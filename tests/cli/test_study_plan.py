"""``mtl.study plan``: what a file means, and what is wrong with it, before anything runs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from cli_bench import mtl, refused
from study_bench import SHORT, write_study
from test_light_doors import light

SET = [f"{key}={value}" for key, value in SHORT.items()]


def planned(path: Path, *argv: object) -> Any:
    said = mtl("study", "plan", path, *argv, "--json")
    assert said.code == 0, said
    return said.json


def test_a_plan_is_what_the_command_lines_plan(mini: Path, tmp_path: Path) -> None:
    plan = planned(write_study(tmp_path))
    expected = {"done": 0, "resumable": 0, "missing": 7, "waiting": 2, "blocked": 0}
    assert plan["states"] == expected
    ours = {run["runhash"] for run in plan["runs"] if run["kind"] != "composition"}
    lines = [
        ["train", "--suite", "mini", "--seeds", 0, 1],
        ["joint", "--suite", "mini", "--method", "adapter-m"],
    ]
    theirs = set()
    for line in lines:
        said = mtl(*line, "--set", *SET, "--dry-run", "--json")
        assert said.code == 0, said
        theirs |= {run["runhash"] for run in said.json["runs"]}
    assert {found[:8] for found in ours} == theirs
    assert len(ours) == 7
    waiting = [run for run in plan["runs"] if run["kind"] == "composition"]
    by_key = {run["key"]: run for run in plan["runs"]}
    for run in waiting:
        needs = [by_key[need] for need in run["needs"]]
        assert {need["task"] for need in needs} == {"mini/same", "mini/mood", "mini/shared"}
        assert {need["seed"] for need in needs} == {run["seed"]}
        assert run["runhash"] is None
    assert plan["bill"]["runs"] == plan["bill"]["unknown"] == 9
    assert plan["bill"]["steps"] == 9 * 4


def test_compositions_are_planned_once_their_sources_are_there(
    stocked: Path, tmp_path: Path
) -> None:
    path = write_study(
        tmp_path,
        *("set", "joint"),
        seeds=[0],
        compose=[{"method": ["scalearn", "fusion"], "targets": ["same"], "set": SHORT}],
    )
    plan = planned(path)
    assert plan["states"]["done"] == 3
    ours = {run["method"]: run for run in plan["runs"] if run["kind"] == "composition"}
    for method, run in ours.items():
        line = ["--target", "same", "--method", method, "--set", *SET, "--dry-run", "--json"]
        (theirs,) = mtl("compose", *line).json["runs"]
        assert run["runhash"][:8] == theirs["runhash"]
        assert run["state"] == theirs["state"] == "missing"


def test_the_bill_goes_by_finished_runs(stocked: Path, tmp_path: Path) -> None:
    """Of the same settings by their seconds, of others by those per step; else unknown."""
    path = write_study(tmp_path, "compose", "set", "joint", seeds=[0, 1])
    runs = {(run["task"], run["seed"]): run for run in planned(path)["runs"]}
    done, other = runs["mini/mood", 0], runs["mini/mood", 1]
    assert (done["state"], other["state"]) == ("done", "missing")
    assert other["seconds_by"] == "runs like it"
    from mtl.zoo import open_zoo

    (entry,) = open_zoo(stocked).entries(task="mini/mood")
    told = entry.manifest.training
    assert other["seconds"] == told["seconds"]
    longer = planned(write_study(tmp_path, "compose", "joint", seeds=[1], set={"max_steps": 50}))
    (run,) = [run for run in longer["runs"] if run["task"] == "mini/mood"]
    assert run["seconds_by"] == "this task"
    assert run["seconds"] == pytest.approx(50 * told["seconds"] / told["steps"])
    assert longer["bill"]["seconds"] == pytest.approx(
        sum(run["seconds"] for run in longer["runs"]), abs=0.1
    )
    unknown = planned(
        write_study(tmp_path, "compose", "joint", train=[{"method": "bitfit"}], seeds=[0])
    )
    assert unknown["bill"]["unknown"] == 3


def test_the_grid_seeds_and_shots(mini: Path, tmp_path: Path) -> None:
    path = write_study(
        tmp_path,
        *("compose", "joint"),
        seeds_of={"mood": [5]},
        train=[
            {
                "method": ["pfeiffer", "lora"],
                "set": {"lr": [1e-3, 2e-3], "epochs": 1, "max_steps": 0},
                "shots": [0, 8],
                "shot_draws": [0, 1],
            }
        ],
    )
    runs = planned(path)["runs"]
    per_seed = 2 * 2 * 3  # methods, rates, all rows and two draws of eight
    assert len(runs) == per_seed * (2 + 2 + 1)
    assert len({run["runhash"] for run in runs}) == len(runs)
    assert {run["seed"] for run in runs if run["task"] == "mini/mood"} == {5}
    shots = Counter(
        (run["settings"].get("shots"), run["settings"].get("shot_draw")) for run in runs
    )
    assert shots == {(None, None): 20, (8, None): 20, (8, 1): 20}


def test_few_shot_compositions_take_the_own_adapter_of_the_same_rows(
    mini: Path, tmp_path: Path
) -> None:
    path = write_study(
        tmp_path,
        "joint",
        seeds=[0],
        shots=[0, 8],
        compose=[{"method": "scalearn", "targets": ["same"], "shots": [8]}],
    )
    plan = planned(path)
    by_key = {run["key"]: run for run in plan["runs"]}
    (run,) = [run for run in plan["runs"] if run["kind"] == "composition"]
    shots = {
        by_key[need]["task"]: by_key[need]["settings"].get("shots", 0) for need in run["needs"]
    }
    assert shots == {"mini/same": 8, "mini/mood": 0, "mini/shared": 0}


def test_all_is_what_the_study_names(mini: Path, tmp_path: Path) -> None:
    plan = planned(write_study(tmp_path, "joint", tasks=["same", "mood"], seeds=[0]))
    (run,) = [run for run in plan["runs"] if run["kind"] == "composition"]
    assert len(run["needs"]) == 2


def test_a_plan_of_a_known_base_is_light(mini: Path, tmp_path: Path) -> None:
    path = write_study(tmp_path)
    first = mtl("study", "plan", path)
    assert first.code == 0, first
    assert light("study", "plan", path) == first
    assert light("study", "status", path).code == 0
    refused(light("study", "plan", write_study(tmp_path, sedes=[1])), "Did you mean 'seeds'?")


def test_a_base_that_is_not_there_blocks_runs_and_hides_no_cell(mini: Path, tmp_path: Path) -> None:
    path = write_study(tmp_path, model=["no/such-model"])
    plan = planned(path)
    assert plan["states"]["blocked"] == len(plan["runs"]) == 9
    assert "no/such-model" in plan["problems"][0]
    assert len(plan["problems"]) == 1
    said = mtl("study", "run", path)
    refused(said, "Nothing was run: 9 of 9 runs cannot be", "no/such-model")


WRONG: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"sedes": [0]}, ("'sedes' in small.yaml", "Did you mean 'seeds'?")),
    ({"train": [{"methods": "lora"}]}, ("train[0]", "Did you mean 'method'?")),
    ({"train": {"method": "lora"}}, ("train must be a list",)),
    ({"train": ["lora"]}, ("train[0] must hold keys and values",)),
    ({"train": [{"method": "pfeifer"}]}, ("train[0]", "Did you mean 'pfeiffer'?")),
    ({"train": [{"method": "scalearn"}]}, ("train[0]", "'compose'")),
    ({"joint": [{"method": "pfeiffer"}]}, ("joint[0]", "'train'")),
    ({"train": [{"method": ["lora", "lora"]}]}, ("names lora twice",)),
    ({"seeds": [0, 1, 0]}, ("seeds names 0 twice",)),
    ({"seeds": [-1]}, ("seeds", "-1")),
    ({"seeds": ["a"]}, ("seeds", "'a'")),
    ({"seeds": []}, ("seeds is empty",)),
    ({"suite": "mimi"}, ("Did you mean 'mini'?",)),
    ({"tasks": ["mod"]}, ("mod", "'mini/mood'")),
    ({"tasks": ["mood", "mini/mood"]}, ("twice",)),
    ({"recipe": "mimi"}, ("Did you mean 'mini'?",)),
    ({"set": {"lrr": 1}}, ("train[0]", "Did you mean 'lr'?")),
    ({"set": {"lr": [1e-3, 1e-3]}}, ("set.lr names 0.001 twice",)),
    ({"set": {"lr": []}}, ("set.lr is empty",)),
    ({"set": {"lr": {"log": [1, 2]}}}, ("set.lr must be a value",)),
    ({"model": "."}, ("config.json",)),
    ({"threads": 0}, ("threads",)),
    ({"compose": [{"method": "scalearn", "targets": ["moood"]}]}, ("compose[0]", "moood")),
    ({"compose": [{"method": "scalern"}]}, ("compose[0]", "Did you mean 'scalearn'?")),
    ({"compose": [{"method": "probe"}]}, ("compose[0]", "no cell of a study")),
    (
        {"compose": [{"method": "scalearn", "source_seeds": 7}]},
        ("compose[0]", "seed 7", "mini/mood:pfeiffer", "no train of this study makes them"),
    ),
    (
        {"compose": [{"method": "scalearn", "source_method": "lora"}]},
        ("compose[0]", "mini/same:lora"),
    ),
    (  # what could be a cycle
        {"compose": [{"method": "scalearn", "sources": ["same:scalearn"], "targets": ["same"]}]},
        ("compose[0]", "scalearn is a composition, and sources are of stage one"),
    ),
    (
        {
            "train": [{"method": "pfeiffer", "set": {"lr": [0.1, 0.2]}}],
            "compose": [{"method": "scalearn"}],
        },
        ("compose[0]", "2 times", "lr=0.1", "source_set"),
    ),
    (
        {
            "train": [
                {"method": "lora"},
                {"method": "lora", "set": {"lr": [0.1, 0.2]}, "seeds": 1},
            ],
            "compose": [],
            "seeds": [1],
        },
        (),
    ),
    (
        {"train": [{"method": "lora"}, {"method": "lora"}]},
        ("train[1]", "train[0]", "both name the run"),
    ),
    (
        {
            "train": [{"method": "lora"}, {"method": "lora", "set": {"select": "loss"}}],
            "compose": [],
        },
        ("train[1]", "train[0]", "both name the run", "come to the same"),
    ),
    ({"joint": [{"method": "adapter-m", "tasks": ["mood"]}]}, ("joint[0]", "two tasks")),
    ({"search": {"over": {"lr": [1, 2]}}}, ("search",)),
    ({"train": [], "compose": [], "joint": []}, ("names no runs",)),
]


@pytest.mark.parametrize(
    ("changes", "parts"), WRONG, ids=[str(index) for index in range(len(WRONG))]
)
def test_what_is_wrong_is_one_message(
    changes: dict[str, Any], parts: tuple[str, ...], mini: Path, tmp_path: Path
) -> None:
    said = mtl("study", "plan", write_study(tmp_path, **changes))
    if not parts:
        assert said.code == 0, said
        return
    refused(said, *parts)
    assert len(said.err) < 1500
    assert not mini.exists()


def test_a_file_that_holds_itself(mini: Path, tmp_path: Path) -> None:
    path = tmp_path / "round.yaml"
    path.write_text("suite: mini\ntrain: &a\n  - *a\n")
    refused(mtl("study", "plan", path), "train[0] must hold keys and values")
    path.write_text("suite: mini\ntrain:\n  - &b\n    method: lora\n    set: *b\n")
    refused(mtl("study", "plan", path), "train[0]")


def test_recipes_that_extend_each_other(mini: Path, tmp_path: Path) -> None:
    for one, other in (("a", "b"), ("b", "a")):
        (tmp_path / f"{one}.yaml").write_text(
            f"extends: {other}.yaml\nmethods: {{pfeiffer: {{}}}}\n"
        )
    said = mtl("study", "plan", write_study(tmp_path, recipe="a.yaml"))
    refused(said, "compose[0]", "b.yaml: extends leads back to a.yaml")


def test_a_study_that_is_not_there() -> None:
    refused(mtl("study", "plan", "dmo"), "Did you mean 'demo'?")
    refused(mtl("study", "plan", "nothing.yaml"), "nothing.yaml")


def test_the_studies_by_name() -> None:
    said = mtl("study", "ls")
    assert said.code == 0
    assert "demo" in said.out


def published_cells(study: str) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """(row, task) of a study's runs and named gaps; and of the figures of its table."""
    from mtl.report.published import load_published
    from mtl.study import cells_of, read_study

    read = read_study(study)
    assert read.against is not None
    table = load_published(read.against)
    wanted = {
        (row.name, column.task)
        for row in table.rows
        for column, value in zip(table.columns, row.values, strict=True)
        if value is not None
    }
    cells = cells_of(read)
    assert all(cell.row for cell in cells)
    ours = {(cell.row, task) for cell in cells for task in cell.ids}
    ours |= {(row, column.task) for row in read.gaps for column in table.columns}
    for row in table.rows:
        assert (row.method is None) == (row.name in read.gaps), row.name
        assert read.gaps.get(row.name, "") == row.gap
        assert {cell.method for cell in cells if cell.row == row.name} <= {row.method}
    return ours, wanted


@pytest.mark.parametrize(
    "study",
    [
        *("scalearn-glue", "scalearn-superglue", "scalearn-humset", "adakron-bert-base"),
        *("adakron-bert-base-poster", "tensorized-bert", "sora-deberta", "adalora-deberta"),
        "alora-roberta-large",
    ],
)
def test_a_study_of_a_table_names_exactly_its_cells(study: str) -> None:
    ours, wanted = published_cells(study)
    assert ours == wanted


def test_the_seeds_of_the_scalearn_study() -> None:
    from mtl.study import cells_of, read_study

    seeds: dict[tuple[str, str], set[int]] = {}
    for cell in cells_of(read_study("scalearn-glue")):
        seeds.setdefault((cell.kind, cell.task), set()).add(cell.seed)
        if cell.kind == "composition":
            assert cell.source_seed == 0
    large = {"glue/sst2", "glue/qnli", "glue/qqp", "glue/mnli"}
    for (kind, task), found in seeds.items():
        many = kind == "composition" and task not in large
        expected = {*range(10)} if many else {0} if kind == "adapter" else {0, 1, 2}
        assert found == expected, (kind, task)


def test_every_study_is_one_that_the_checks_take() -> None:
    from mtl.study import Places, list_studies, plan_study, read_study

    for name in list_studies():
        plan = plan_study(read_study(name), Places())
        assert plan.nodes, name
        assert plan.graph().number_of_edges() == sum(len(n.needs) for n in plan.nodes.values())
        said = read_study(name).notes
        assert said, name


def test_rows_that_a_table_does_not_have(mini: Path, tmp_path: Path) -> None:
    wrong = {"train": [{"method": "lora", "row": "LoRAA"}], "compose": []}
    refused(mtl("study", "plan", write_study(tmp_path, **wrong)), "against")
    path = write_study(tmp_path, **wrong, against="alora-roberta-large")
    refused(mtl("study", "plan", path), "train[0]", "Did you mean 'LoRA'?")
    refused(mtl("study", "plan", write_study(tmp_path, against="scalearn-gleu")), "scalearn-glue")


def test_compositions_that_differ_in_their_sources_alone_are_told_apart(
    mini: Path, tmp_path: Path
) -> None:
    two = {"method": "scalearn", "targets": ["same"], "source_seeds": 0}
    items = [
        {**two, "sources": ["mood", "same"]},
        {**two, "sources": ["mood", "same"], "control": "permuted"},
        {**two, "sources": "best"},
    ]
    path = write_study(tmp_path, "joint", seeds=[0], compose=items)
    said = mtl("study", "plan", path)
    lines = [line for line in said.out.splitlines() if line.startswith("compose")]
    assert len(lines) == 3
    assert "sources=mood,same" in lines[0]
    assert "control" not in lines[0]
    assert "sources=mood,same control=permuted" in lines[1]
    assert "sources=best" in lines[2]
