"""``mtl.tasks``: what it lists, shows and finds wrong."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_bench import TASKS, mtl, refused

from mtl.tasks import list_tasks, load_task


def test_ls(mini: Path) -> None:
    found = mtl("tasks", "ls", "--json").json
    assert not found["problems"]
    rows = {row["task"]: row for row in found["tasks"]}
    assert rows["mini/shared"] == {
        "task": "mini/shared",
        "kind": "regression",
        "metric": "pearson",
        "outputs": 1,
        "rows": {"train": 96, "dev": 32, "test": 40},
        "source": "files: train, dev, test",
        "suites": ["mini"],
    }
    assert rows["glue/rte"]["source"] == "nyu-mll/glue:rte"
    assert rows["glue/wnli"]["suites"] == []
    (suite,) = [item for item in found["suites"] if item["suite"] == "mini"]
    assert suite["tasks"] == TASKS
    assert (suite["recipe"], suite["target"]) == ("mini", "mini/same")
    assert {"demo", "mini", "scalearn"} <= set(found["recipes"])
    said = mtl("tasks", "ls")
    assert said.code == 0
    words = (
        *TASKS,
        "roberta-base",
        "recipes: ",
        "demo/entail",
        "nyu-mll/glue:cola",
        "96 / 32 / 40",
    )
    for word in (*words, "8,000 / 300 / 1,200"):
        assert word in said.out
    assert rows["demo/nli"]["rows"] == {"train": 8000, "dev": 300, "test": 1200}
    assert rows["glue/rte"]["rows"] is None  # neither mirror nor cache


def test_ls_of_one_suite(mini: Path) -> None:
    found = mtl("tasks", "ls", "--suite", "mini", "--json").json
    assert [row["task"] for row in found["tasks"]] == TASKS
    assert [suite["suite"] for suite in found["suites"]] == ["mini"]
    said = mtl("tasks", "ls", "--suite", "mini")
    assert "mini/mood" in said.out
    assert "demo/nli" not in said.out
    refused(mtl("tasks", "ls", "--suite", "minni"), "Unknown suite 'minni'", "'mini'")


def test_ls_counts_rows_of_a_mirror(mini: Path, tmp_path: Path) -> None:
    import pandas

    for split, rows in (("train", 7), ("validation", 3)):
        path = tmp_path / "data" / "nyu-mll" / "glue" / "rte" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pandas.DataFrame({"sentence1": ["a"] * rows}).to_parquet(path)
    found = mtl("tasks", "ls", "--suite", "glue", "--data-root", tmp_path / "data", "--json").json
    rows = {row["task"]: row["rows"] for row in found["tasks"]}
    assert rows["glue/rte"] == {"train": 7, "validation": 3}
    assert rows["glue/cola"] is None


def test_ls_names_files_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "a.yaml").write_text("id: own/a\nkind: classification\n")
    (tmp_path / "own" / "b.yaml").write_text("id: [\n")
    monkeypatch.setenv("MTL_TASKS", str(tmp_path / "own"))
    said = mtl("tasks", "ls")
    assert said.code == 0
    assert said.out.count("not usable: ") == 2
    assert "demo/entail" in said.out
    assert len(mtl("tasks", "ls", "--json").json["problems"]) == 2


def test_show_rows_as_text(mini: Path, suite_folder: Path) -> None:
    with (suite_folder / "same_dev.csv").open(newline="") as stream:
        expected = list(csv.DictReader(stream))
    found = mtl("tasks", "show", "same", "-n", "2", "--split", "dev", "--json").json
    assert found["sizes"] == {"train": 96, "dev": 32, "test": 40}
    assert [(row["texts"], row["label"]) for row in found["rows"]] == [
        ([row["a"], row["b"]], row["label"]) for row in expected[:2]
    ]
    shots = mtl(
        "tasks", "show", "same", "-n", "9", "--shots", "4", "--shot-draw", "1", "--json"
    ).json
    assert len(shots["rows"]) == shots["sizes"]["train"] == 4
    assert shots["rows"][0]["place"] != found["rows"][0]["place"]
    assert (
        "train: 4 shots, draw 1" in mtl("tasks", "show", "same", "--shots=4", "--shot-draw=1").out
    )
    said = mtl("tasks", "show", "mini/shared")
    assert said.code == 0
    assert said.out.count("\ntrain ") == 3
    assert "protocol official: train 96, dev 32, test 40" in said.out
    labels = [row["label"] for row in mtl("tasks", "show", "shared", "--json").json["rows"]]
    assert all(isinstance(label, float) for label in labels)


def test_show_rows_as_the_encoder_sees_them(
    mini: Path, tiny: Callable[[str], str], tmp_path: Path
) -> None:
    rows = ["a,b,label", "the cat sees a bird,a bird,same", f"{'the dog ' * 9},no bird,other"]
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "t.yaml").write_text(
        "id: own/t\ndata: {files: {train: train.csv, dev: dev.csv, test: test.csv}}\n"
        'kind: classification\ninputs: ["{a}", "{b}"]\nlabels: [other, same]\n'
        "metrics: [accuracy]\nmax_length: 12\n"
    )
    line = ["show", tmp_path / "t.yaml", "--protocol", "official", "--model", tiny("roberta")]
    first, second = mtl("tasks", *line, "--json").json["rows"]
    assert " ".join(first["tokens"]) == "<s> the cat sees a bird </s> a bird </s>"
    assert (first["length"], first["truncated"]) == (10, False)
    assert " ".join(second["tokens"]) == "<s> the dog the dog the dog the </s> no bird </s>"
    assert (second["length"], second["truncated"]) == (12, True)
    said = mtl("tasks", *line)
    assert "12 tokens, truncated: <s> the dog" in said.out
    assert "  b = no bird" in said.out
    assert f"line 3 of {tmp_path / 'train.csv'}" in said.out
    assert second["columns"]["label"] == "other"
    checked = mtl("tasks", "check", *line[1:], "--json").json
    assert any("cut at max_length 12" in text for text in checked["tasks"][0]["remarks"])
    for row in checked["tasks"][0]["splits"]:
        assert (row["rows"], row["longest"], row["truncated"]) == (2, 12, 0.5)
    assert "50.0%" in mtl("tasks", "check", *line[1:]).out


def test_check_good_tasks(mini: Path) -> None:
    found = mtl("tasks", "check", *TASKS, "--json")
    answer = found.json
    # Templates over a few words: the very same sentences stand in train and test.
    assert (found.code, answer["wrong"], answer["problems"]) == (1, 2, [])
    for report in answer["tasks"]:
        checks = {f["check"] for f in report["findings"] if f["level"] == "problem"}
        assert checks == (set() if report["task"] == "mini/shared" else {"leak-exact"})
    by_task = {report["task"]: report for report in answer["tasks"]}
    assert list(by_task) == TASKS
    train = by_task["mini/same"]["splits"][0]
    assert (train["split"], train["rows"], train["empty"]) == ("train", 96, 0)
    assert sum(train["labels"].values()) == 96
    assert set(train["labels"]) == {"other", "same"}
    assert by_task["mini/shared"]["splits"][0]["labels"]["max"] == 3.0


def test_check_our_own_suite_and_everything(mini: Path) -> None:
    said = mtl("tasks", "check", "demo/entail")
    assert said.code == 0
    assert "1 task checked, nothing wrong." in said.out
    strict = mtl("tasks", "check", "demo/entail", "--strict")
    assert (strict.code == 1) == ("worth a look" in strict.out)
    everything = mtl("tasks", "check", "--all", "--json").json
    wrong = {report["task"] for report in everything["tasks"] if report["problems"]}
    # Without network and mirror, only tasks of the Hub cannot be read.
    hub = {task for task in list_tasks() if "repo" in load_task(task).data}
    assert wrong == {*hub, "mini/same", "mini/mood"}
    assert len(hub) >= 26
    assert everything["wrong"] == len(wrong)


BAD = {
    "unknown label": ("x,y,same\nx,y,smae\n", "line 3 of", "'smae' is none of the labels"),
    "empty texts": (
        "x,y,same\n , ,other\n",
        "train: 1 of 2 rows (50.0%) have no text at all",
        "line 3 of",
    ),
    "absent class": ("x,y,same\nz,y,other\n", "no training row has the label 'third'"),
    "one class": ("x,y,same\nz,y,same\n", "all 2 training rows", "'same'"),
    "no rows": ("", "split 'train'", "is empty"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_check_finds(case: str, tmp_path: Path) -> None:
    body, *parts = BAD[case]
    labels = "other, same, third" if case == "absent class" else "other, same"
    (tmp_path / "train.csv").write_text("a,b,label\n" + body)
    for split in ("dev", "test"):
        (tmp_path / f"{split}.csv").write_text("a,b,label\np,q,same\np,q,same\n,q,other\n")
    path = tmp_path / "t.yaml"
    path.write_text(
        "id: own/t\ndata: {files: {train: train.csv, dev: dev.csv, test: test.csv}}\n"
        f'kind: classification\ninputs: ["{{a}}", "{{b}}"]\nlabels: [{labels}]\n'
        "metrics: [accuracy]\n"
    )
    said = mtl("tasks", "check", path)
    assert said.code == 1
    assert said.err == ""
    assert "1 task checked, 1 wrong." in said.out
    for part in parts:
        assert part in said.out
    answer = mtl("tasks", "check", path, "--json")
    assert answer.code == 1
    (report,) = answer.json["tasks"]
    assert len(report["problems"]) == 1
    if case in {"empty texts", "absent class"}:
        dev = report["splits"][1]
        assert (dev["rows"], dev["duplicates"], dev["empty"]) == (3, 1, 1)
        remarks = " ".join(report["remarks"])
        assert "dev: 1 of 3 rows (33.3%) have one empty text" in remarks
        assert "dev: 1 of 3 rows (33.3%) repeat an earlier row" in remarks


def test_check_a_file_that_is_no_task(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text("id: own/t\nkind: clasification\n")
    said = mtl("tasks", "check", path)
    assert said.code == 1
    assert "lacks 'data'" in said.out


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["check", "mini/moood"], ["Unknown task 'mini/moood'", "'mini/mood'"]),
        (["check", "no.yaml"], ["There is no file no.yaml"]),
        (["check"], ["names of tasks, or --all"]),
        (["check", "mood", "--all"], ["names of tasks, or --all"]),
        (["check", "mood", "--protocol", "oficial"], ["'oficial'", "'official'"]),
        (["check", "mood", "--model", "no/such-model"], ["no/such-model"]),
        (["show", "moood"], ["Unknown task 'moood'", "'mini/mood'"]),
        (["show", "mood", "--split", "tset"], ["Unknown split of mini/mood 'tset'", "'test'"]),
        (["show", "mood", "-n", "0"], ["-n 0"]),
        (["show", "mood", "--shots", "-1"], ["--shots -1"]),
        (["show", "mood", "--shots", "97"], ["--shots 97", "only 96 rows"]),
        (["show", "glue/rte"], ["glue/rte", "--data-root DIR", "--suite demo"]),
    ],
)
def test_wrong_requests(argv: list[str], parts: list[str], mini: Path) -> None:
    refused(mtl("tasks", *argv), *parts)
