"""Files as people have them: other suffixes and separators, rows without a text, rare labels."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import yaml
from cli_bench import TARGET, mtl, refused

WORDS = [
    "cat",
    "dog",
    "bird",
    "tree",
    "house",
    "river",
    "apple",
    "stone",
    "door",
    "happy",
    "sad",
    "good",
    "bad",
    "today",
    "red",
    "small",
]


def rows(count: int, labels: Any = ("good", "bad")) -> list[tuple[str, str]]:
    rng = random.Random(0)
    return [(f"{' '.join(rng.choices(WORDS, k=6))} café", rng.choice(labels)) for _ in range(count)]


@pytest.mark.parametrize(
    ("name", "separator", "head", "encoding", "options"),
    [
        ("a.txt", "\t", True, "utf-8", []),
        ("a.txt", ";", True, "utf-8", []),
        ("a.txt", "|", False, "latin-1", ["--delimiter", "|", "--encoding", "latin-1"]),
        ("a.csv", "\t", True, "utf-8", ["--delimiter", "tab"]),
        ("a.csv", ";", False, "cp1252", ["--separator", ";", "--encoding", "cp1252"]),
        ("a.tsv", "\t", False, "utf-8", []),
    ],
)
def test_what_is_said_of_a_file_is_what_reads_it(
    name: str, separator: str, head: bool, encoding: str, options: list[str], here: Path
) -> None:
    found = rows(40)
    lines = [*([("text", "label")] if head else []), *found]
    text = "".join(f"{separator.join(line)}\n" for line in lines)
    Path(name).write_text(text, encoding=encoding)
    if not head:
        options = [*options, "--no-header", "--columns", "text", "label"]
    said = mtl("tasks", "new", "my/a", "--from", name, *options, "--json")
    assert said.code == 0, said
    assert said.json["task"]["labels"] == ["bad", "good"]
    shown = mtl("tasks", "show", "my/a.yaml", "--protocol", "holdout", "-n", "3", "--json")
    assert shown.code == 0, shown
    assert "café" in shown.out or "caf\\u00e9" in shown.out
    checked = mtl("tasks", "check", "my/a.yaml", "--json")
    assert sum(split["rows"] for split in checked.json["tasks"][0]["splits"]) == 40


def test_a_text_file_is_answered(stocked: Path, here: Path) -> None:
    Path("new.txt").write_text("a;b\nthe cat sees a tree;some dog\n")
    line = ["--input", "new.txt", "--output", "out.csv", "--delimiter", ";"]
    assert mtl("predict", "same/pfeiffer/seed0", *line).code == 0
    assert Path("out.csv").read_text().splitlines()[0] == "a,b,prediction"


def test_names_are_no_numbers(here: Path) -> None:
    Path("a.csv").write_text("text,label\n" + "".join(f"{t},{x}\n" for t, x in rows(30)))
    said = mtl("tasks", "new", "my/a", "--from", "a.csv", "--kind", "regression")
    refused(said, "holds names: 'bad', 'good' (2 of 2 different values)", "Leave --kind out")
    assert not Path("my").exists()
    # one stray word among numbers is a fault of its row
    numbers = "".join(f"{text},{place / 2}\n" for place, (text, _) in enumerate(rows(30)))
    Path("b.csv").write_text(f"text,label\n{numbers}the last,none at all\n")
    said = mtl("tasks", "new", "my/b", "--from", "b.csv", "--kind", "regression")
    refused(said, "line 32", "none at all")


@pytest.mark.parametrize(
    ("content", "advice", "options"),
    [
        (b"a;b\ncat;dog\n", "Pass --separator ';'.", ["--separator", ";"]),
        (b"a\tb\ncat\tdog\n", "Pass --separator tab.", ["--separator", "tab"]),
        ("a,b\ncafé,dog\n".encode("cp1252"), "Pass --encoding cp12", ["--encoding", "cp1252"]),
        (b'a,b\n"cat,dog\nbird,dog\n', "pass --unquoted.", ["--unquoted"]),
    ],
)
def test_advice_on_a_file_to_be_answered_is_of_its_own_options(
    content: bytes, advice: str, options: list[str], stocked: Path, here: Path
) -> None:
    Path("new.csv").write_bytes(content)
    line = ["same/pfeiffer/seed0", "--input", "new.csv", "--output", "out.csv"]
    said = mtl("predict", *line)
    refused(said, "new.csv", advice)
    assert "task file" not in said.err
    assert mtl("predict", *line, *options).code == 0


def empty_rows(folder: Path, suffix: str) -> Path:
    """Good rows, one without a text, one without the label's text of a pair's second part."""
    found: list[dict[str, Any]] = [
        {"a": f"the {WORDS[n % 9]} {n}", "b": f"some {WORDS[n % 5]}", "label": "xy"[n % 2]}
        for n in range(40)
    ]
    found += [{"a": None, "b": None, "label": "x"}, {"a": "the cat", "b": None, "label": "y"}]
    path = folder / f"rows{suffix}"
    if suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(found), path)
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in found))
    else:
        cells = [[row["a"] or "", row["b"] or "", row["label"]] for row in found]
        path.write_text("a,b,label\n" + "".join(",".join(line) + "\n" for line in cells))
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_text_that_is_not_there_is_the_empty_text_everywhere(
    suffix: str, here: Path, tiny: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MTL_MODEL", tiny("roberta"))
    monkeypatch.delenv("MTL_QUIET")
    path = empty_rows(here, suffix)
    task = {
        "id": "my/pair", "data": {"files": dict.fromkeys(("train", "dev", "test"), path.name)},
        "kind": "classification", "inputs": ["{a}", "{b}"], "labels": ["x", "y"],
        "metrics": ["accuracy"], "max_length": 32,
    }  # fmt: skip
    Path("pair.yaml").write_text(yaml.safe_dump(task))
    checked = mtl("tasks", "check", "pair.yaml", "--json")
    found = [f for f in checked.json["tasks"][0]["findings"] if f["check"] == "empty-text"]
    train = [(f["level"], f["count"]) for f in found if f["split"] == "train"]
    assert train == [("problem", 1), ("remark", 1)]
    said = mtl("train", "--task", "pair.yaml", "--max-steps", "2")
    assert said.code == 0, said
    assert "1 of 42 training rows of my/pair have no text at all" in said.err
    line = ["--input", path, "--output", "out.jsonl", "--json"]
    told = mtl("predict", "my/pair/pfeiffer/seed0", *line)
    assert told.code == 0, told
    assert (told.json["answers"], told.json["blank"]) == (42, 1)
    shown = mtl("predict", "my/pair/pfeiffer/seed0", "--input", path, "--output", "two.jsonl")
    assert "1 row has no text at all" in shown.out
    answers = [json.loads(row)["prediction"] for row in Path("out.jsonl").read_text().splitlines()]
    import mtl as face

    model = face.load("my/pair/pfeiffer/seed0")
    assert model.predict([(None, None), ("the cat", None)]) == answers[-2:]
    assert model.predict([("", ""), ("the cat", "")]) == answers[-2:]


def test_labels_that_the_own_hold_out_took_are_no_fault(here: Path) -> None:
    rng = random.Random(0)
    found: list[dict[str, Any]] = [
        {"text": f"{' '.join(rng.choices(WORDS, k=6))} {n}", "labels": rng.sample("xyz", n % 3)}
        for n in range(80)
    ]
    for number in range(0, 80, 4):  # a label of its own in every fourth row: some are held out
        found[number]["labels"] = [f"rare{number}"]
    Path("a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    assert mtl("tasks", "new", "my/a", "--from", "a.jsonl").code == 0
    said = mtl("tasks", "check", "my/a.yaml", "--json")
    findings = said.json["tasks"][0]["findings"]
    absent = [f for f in findings if f["check"] == "absent-label" and f["text"].startswith("no ")]
    assert [f["level"] for f in absent] == ["remark"]
    assert "all its rows were held out" in absent[0]["text"]
    assert said.code == 0, said
    # one that no row of any split has is still wrong
    task = Path("my/a.yaml")
    task.write_text(task.read_text().replace('"x"', '"nowhere", "x"'))
    said = mtl("tasks", "check", task, "--json")
    assert said.code == 1
    assert any("'nowhere'" in text for text in said.json["tasks"][0]["problems"])


def test_the_mini_suite_is_what_it_was(stocked: Path) -> None:
    """Rows with all their texts say nothing new."""
    said = mtl("train", "--suite", "mini", "--task", "same", "--dry-run", "--json")
    assert [run["state"] for run in said.json["runs"]] == ["done"]
    assert said.json["runs"][0]["task"] == TARGET


def test_answers_without_any_label_are_counted(
    here: Path, tiny: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MTL_MODEL", tiny("roberta"))
    rng = random.Random(0)
    found = [
        {"text": f"{' '.join(rng.choices(WORDS, k=4))} {n}", "labels": ["x"] if n % 9 == 0 else []}
        for n in range(60)
    ]
    Path("a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    assert mtl("tasks", "new", "my/a", "--from", "a.jsonl", "--kind", "multilabel").code == 0
    assert mtl("train", "--task", "my/a.yaml", "--max-steps", "30", "--lr", "0.01").code == 0
    line = ["predict", "my/a/pfeiffer/seed0", "--input", "a.jsonl", "--output", "out.jsonl"]
    said = mtl(*line, "--json")
    assert said.code == 0, said
    answers = [json.loads(row)["prediction"] for row in Path("out.jsonl").read_text().splitlines()]
    assert said.json["without"] == answers.count([]) > 0
    shown = mtl(*line, "--overwrite")
    (row,) = [text for text in shown.out.splitlines() if text.startswith("(no label)")]
    assert row.split()[2:4] == [str(answers.count([])), f"{answers.count([]) / 60:.1%}"]
