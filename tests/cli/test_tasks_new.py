"""``mtl.tasks new``, and the way from somebody's files to a trained adapter."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_bench import entries, mtl, refused

from mtl.tasks import load_task

ANIMALS = ["cat", "dog", "bird", "friend", "teacher"]
WORDS = {"good": ["happy", "good", "quiet"], "bad": ["sad", "bad", "old"]}


def reviews(rows: int, seed: int = 0) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    found = []
    for number in range(rows):
        label = rng.choice(["good", "bad"])
        text = f"the {rng.choice(ANIMALS)} in the {rng.choice(['red', 'green', 'big'])} house is "
        text += f"{rng.choice(WORDS[label])} and {rng.choice(WORDS[label])} today"
        found.append({"id": 1000 + number, "review": text, "author": "some", "verdict": label})
    return found


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_from_a_csv_to_an_adapter(here: Path, tiny: Callable[[str], str]) -> None:
    """One file, three commands, no YAML typed."""
    write_csv(here / "a.csv", reviews(120))
    said = mtl("tasks", "new", "my/reviews", "--from", "a.csv")
    assert said.code == 0, said
    assert "wrote my/reviews.yaml" in said.out
    for part in ("label: column 'verdict'", "texts: 'review'", "kind: classification, the labels"):
        assert part in said.out
    assert "not used: id, author" in said.out
    assert "protocol holdout" in said.out
    path = here / "my" / "reviews.yaml"
    assert path.read_text().startswith("# python -m mtl.tasks check my/reviews.yaml\n")
    assert yaml.safe_load(path.read_text()) == {
        "id": "my/reviews",
        "data": {"files": {"train": "../a.csv"}},
        "kind": "classification",
        "inputs": ["{review}"],
        "label_column": "verdict",
        "labels": ["bad", "good"],
        "metrics": ["accuracy", "f1"],
        "max_length": 128,
    }
    checked = mtl("tasks", "check", "my/reviews.yaml", "--near", "0", "--json")
    sizes = {row["split"]: row["rows"] for row in checked.json["tasks"][0]["splits"]}
    assert sizes == {"train": 97, "dev": 11, "test": 12}
    line = ["--task", "my/reviews.yaml", "--model", tiny("roberta"), "--epochs", "1"]
    said = mtl("train", *line, "--json")
    assert said.code == 0, said
    run = said.json["runs"][0]
    assert (run["task"], run["n"]) == ("my/reviews", 12)
    assert "/my/reviews/pfeiffer/" in run["ref"]
    assert mtl("train", *line, "--json").json["runs"][0]["status"] == "skipped"


def test_own_data_as_a_target_of_a_suite(stocked: Path, here: Path) -> None:
    """Sources of the suite keep its protocol; the target has its own."""
    write_csv(here / "a.csv", reviews(80))
    write_csv(here / "b.csv", reviews(30, 5))
    said = mtl(
        "tasks", "new", "my/reviews", "--from", "a.csv", "--test", "b.csv", "--out", "r.yaml"
    )
    assert said.code == 0, said
    line = ["--target", "r.yaml", "--suite", "mini", "--max-steps", "2"]
    said = mtl("compose", *line, "--json")
    refused(said, "1 of 4 sources", "my/reviews (pfeiffer)", "--task r.yaml")
    (remedy,) = [text.split() for text in said.err.splitlines() if "mtl.train" in text]
    assert mtl("train", *remedy[3 : remedy.index("#")], "--max-steps", "2").code == 0
    said = mtl("compose", *line, "--json")
    assert said.code == 0, said
    assert [ref.split("/")[-3] for ref in said.json["sources"]] == [
        "same",
        "mood",
        "shared",
        "reviews",
    ]
    assert said.json["runs"][0]["n"] == 30
    few = mtl("compose", *line, "--shots", "4", "--without-own", "--json")
    assert few.code == 0, few


def test_three_files_and_a_folder_of_tasks(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "own").mkdir()
    monkeypatch.setenv("MTL_TASKS", str(here / "own"))
    for name in "abc":
        rows = [{"title": row["review"], "stars": 1.5 + n % 7} for n, row in enumerate(reviews(20))]
        (here / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = ["--from", "a.jsonl", "--dev", "b.jsonl", "--test", "c.jsonl"]
    said = mtl("tasks", "new", "my/stars", *line, "--json")
    assert said.code == 0, said
    answer = said.json
    assert answer["file"] == str(here / "own" / "my" / "stars.yaml")
    assert answer["task"]["kind"] == "regression"
    assert answer["task"]["metrics"] == ["pearson", "spearman"]
    assert list(answer["task"]["data"]["files"]) == ["train", "validation", "test"]
    assert any("three files as they are" in guess for guess in answer["guesses"])
    assert mtl("tasks", "show", "my/stars", "--json").json["protocol"] == "official"
    assert "my/stars" in mtl("tasks", "ls").out


PAIR = {"premise": "the dog is in the house", "hypothesis": "a dog is in", "idx": 0}
GUESSES: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "a pair and words that YAML reads as truth": (
        [{**PAIR, "idx": n, "gold_label": ["no", "yes"][n % 2]} for n in range(40)],
        {"inputs": ["{premise}", "{hypothesis}"], "labels": ["no", "yes"]},
    ),
    "class numbers": (
        [{"text": f"some old cat {n}", "label": n % 3} for n in range(60)],
        {"labels": ["0", "1", "2"], "metrics": ["accuracy", "macro_f1"]},
    ),
    "truth values": (
        [{"text": f"some old cat {n}", "label": n % 2 == 0} for n in range(40)],
        {"labels": ["false", "true"]},
    ),
    "the negative name first": (
        [{"text": f"some old cat {n}", "label": ["spam", "not_spam"][n % 2]} for n in range(40)],
        {"labels": ["not_spam", "spam"]},
    ),
    "sets of labels": (
        [{"text": f"some old cat {n}", "tags": [["a", "b"], [], ["c"]][n % 3]} for n in range(40)],
        {"kind": "multilabel", "labels": ["a", "b", "c"], "metrics": ["macro_f1", "accuracy"]},
    ),
    "a scale": (
        [{"text": f"some old cat {n}", "score": n} for n in range(60)],
        {"kind": "regression", "labels": []},
    ),
    "mostly one class": (
        [{"text": f"some old cat {n}", "label": "a" if n % 10 else "b"} for n in range(60)],
        {"metrics": ["macro_f1", "accuracy"]},
    ),
    "a rare class": (
        [{"text": f"some old cat {n}", "label": ["a", "b", "c"][min(n, 2)]} for n in range(60)],
        {"stratify": False, "labels": ["a", "b", "c"]},
    ),
    "long texts": (
        [{"text": "some old cat " * 100, "label": ["a", "b"][n % 2]} for n in range(40)],
        {"max_length": 512},
    ),
}


@pytest.mark.parametrize("case", list(GUESSES))
def test_guesses(case: str, here: Path) -> None:
    rows, expected = GUESSES[case]
    (here / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = mtl("tasks", "new", "my/x", "--from", "a.jsonl", "--json")
    assert said.code == 0, said
    task = said.json["task"]
    assert {key: task[key] for key in expected} == expected
    # and what was written can be used
    checked = mtl("tasks", "check", "my/x.yaml", "--json").json["tasks"][0]
    assert not [f for f in checked["findings"] if f["check"] in {"unusable", "unknown-label"}]
    assert checked["splits"]


def test_what_is_said_goes_before_guesses(here: Path) -> None:
    rows = [{"a b": f"old cat {n}", "t": f"red dog {n}", "label": 1 + n % 5} for n in range(50)]
    write_csv(here / "a.csv", rows)
    line = ["--from", "a.csv", "--text", "t", "a b", "--label", "label", "--kind", "regression"]
    task = mtl("tasks", "new", "my/x", *line, "--json").json["task"]
    assert (task["inputs"], task["kind"]) == (["{t}", "{a b}"], "regression")


def test_nothing_is_overwritten(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_csv(here / "a.csv", reviews(40))
    line = ["tasks", "new", "my/x", "--from", "a.csv"]
    assert mtl(*line).code == 0
    path = here / "my" / "x.yaml"
    path.write_text(path.read_text() + "# mended by hand\n")
    refused(mtl(*line), "my/x.yaml is there already", "not overwritten", "--out")
    assert path.read_text().endswith("# mended by hand\n")
    monkeypatch.setenv("MTL_TASKS", str(here / "my"))
    refused(mtl(*line, "--out", "other.yaml"), "a task my/x already", "my/x.yaml")
    assert not (here / "other.yaml").exists()


@pytest.mark.parametrize(
    ("rows", "argv", "parts"),
    [
        ("x,y\nsome text,1\n", ["reviews"], ["SUITE/NAME", "my/reviews"]),
        ("x,y\nsome text,1\n", ["../up/x"], ["SUITE/NAME"]),
        ("x,y\nsome text,1\n", ["..", "--label", "y"], ["SUITE/NAME"]),
        ("x,y\nsome text,1\n", ["my/x", "--label", "Y"], ["--label Y", "Did you mean 'y'"]),
        ("x,y\nsome text,1\n", ["my/x", "--label", "y"], ["only '1'", "two classes"]),
        ("x,w\na b,1\nb c,1\n", ["my/x"], ["'x', 'w' looks like the label", "--label COLUMN"]),
        ("x,label\na b,1\nb c,2\n", ["my/x", "--text", "z"], ["--text z", "x, label"]),
        ("x,label\n,1\n,2\n", ["my/x"], ["looks like a text", "--text COLUMN"]),
        ("x,label\na b,1\na b,2\n", ["my/x", "--text", "label"], ["text and label at once"]),
        ("x:y,label\na b,1\nb c,2\n", ["my/x"], ["'x:y'", "Rename the column"]),
        ("x,label\n", ["my/x"], ["a.csv", "holds no rows"]),
        ("", ["my/x"], ["a.csv is empty"]),
        (None, ["my/x"], ["a.csv", "No such file"]),
        ("x,label\na b,1\n", ["my/x", "--dev", "b.xlsx"], ["b.xlsx", "suffix '.xlsx'"]),
        ("x,label\na b,1\nb c,2\n", ["my/x", "--out", "x.txt"], ["ends in .yaml"]),
    ],
)
def test_wrong_requests(rows: str | None, argv: list[str], parts: list[str], here: Path) -> None:
    if rows is not None:
        (here / "a.csv").write_text(rows)
    refused(mtl("tasks", "new", *argv, "--from", "a.csv"), *parts)
    assert not list(here.rglob("*.yaml"))
    assert not entries(here)


@pytest.mark.parametrize("form", ["columns", "vectors", "separated"])
def test_sets_of_labels_from_a_file_to_an_adapter(
    form: str, here: Path, tiny: Callable[[str], str]
) -> None:
    """Drafted, checked, shown and trained as three labels, not as the names 0 and 1."""
    names = ["toxic", "calm", "rude"]
    rows = []
    for n in range(60):
        ones = [n % 2, int(n % 3 == 0), int(n % 5 == 0)]
        on = [name for name, one in zip(names, ones, strict=True) if one]
        labels: dict[str, Any] = {
            "columns": dict(zip(names, ones, strict=True)),
            "vectors": {"labels": str(ones)},
            "separated": {"labels": ";".join(on)},
        }[form]
        rows.append({"text": f"some old cat {n}", **labels})
    write_csv(here / "a.csv", rows)
    said = mtl("tasks", "new", "my/x", "--from", "a.csv", "--json")
    assert said.code == 0, said
    assert any("kind: multilabel" in guess for guess in said.json["guesses"])
    task = said.json["task"]
    assert (task["kind"], len(task["labels"])) == ("multilabel", 3)
    checked = mtl("tasks", "check", "my/x.yaml", "--near", "0", "--json").json["tasks"][0]
    assert not checked["problems"]
    counts = [sum(row["labels"][name] for row in checked["splits"]) for name in task["labels"]]
    assert sorted(counts) == [12, 20, 30]
    shown = mtl("tasks", "show", "my/x.yaml", "-n", "1", "--model", tiny("roberta"), "--json")
    assert set(shown.json["rows"][0]["label"]) <= set(task["labels"])
    if form == "columns":  # the same arrays from here on
        line = ["--task", "my/x.yaml", "--model", tiny("roberta"), "--max-steps", "2"]
        said = mtl("train", *line, "--json")
        assert said.code == 0, said
        assert (said.json["runs"][0]["n"], said.json["runs"][0]["task"]) == (6, "my/x")


def test_objects_are_no_labels(here: Path) -> None:
    rows = [{"text": f"old cat {n}", "label": {"a": n % 2, "b": 1}} for n in range(20)]
    (here / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = mtl("tasks", "new", "my/x", "--from", "a.jsonl")
    refused(said, "'label.a', 'label.b' hold nothing but 0 and 1", "--label label.a label.b")
    assert "say which: --label label.a." in said.err  # the other one is 1 in every row
    (here / "b.csv").write_text("text\nsome cat\nold cat\n")
    refused(mtl("tasks", "new", "my/x", "--from", "b.csv"), "only column is 'text'", "one file")
    assert not list(here.rglob("*.yaml"))


def test_questions_with_spans_and_named_choices_are_drafted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Any
) -> None:
    """Such rows were drafted as sets of labels, and as a pair of two of three choices."""
    monkeypatch.chdir(tmp_path)
    spans, choices = [], []
    for n in range(60):
        words = [f"word{n}", "and", "green", f"thing{n}"]
        place = len(words[0]) + 1
        answers = {"text": ["and"], "answer_start": [place]}
        spans.append({"question": f"what {n}?", "context": " ".join(words), "answers": answers})
        texts = {name: f"the {name} of {n}" for name in ("left", "middle", "right")}
        choices.append(
            {"ask": f"where is {n}?", **texts, "gold": ("left", "middle", "right")[n % 3]}
        )
    for name, rows in (("spans", spans), ("choices", choices)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text)
        line = ["tasks", "new", f"my/{name}", "--from", f"{name}.jsonl", "--out", f"{name}.yaml"]
        said = mtl(*line)
        assert said.code == 0, said
        assert mtl("tasks", "check", f"{name}.yaml").code == 0
        run = ["--model", tiny("roberta"), "--max-steps", "1", "--zoo", tmp_path / "zoo"]
        assert mtl("train", "--task", f"{name}.yaml", *run).code == 0
    found = {name: load_task(str(tmp_path / f"{name}.yaml")) for name in ("spans", "choices")}
    assert (found["spans"].kind, found["spans"].headline) == ("span_extraction", "token_f1")
    assert found["spans"].inputs == ("{question}", "{context}")
    assert found["choices"].kind == "multiple_choice"
    assert found["choices"].inputs == ("{ask}", "{left}", "{middle}", "{right}")
    assert found["choices"].labels == ("left", "middle", "right")
    other = ["--label", "gold", "--kind", "classification", "--out", "other.yaml"]
    said = mtl("tasks", "new", "my/other", "--from", "choices.jsonl", *other)
    assert load_task(str(tmp_path / "other.yaml")).kind == "classification", said
