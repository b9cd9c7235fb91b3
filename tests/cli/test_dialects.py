"""Files that their suffix does not describe: found out by ``new``, written down, read alike."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_bench import mtl, refused
from dialects_bench import OBJECTS, ROWS, cells, label, lines_of, quoted, sizes, swallowing, text

CASES: dict[str, tuple[str, bytes, dict[str, Any], str]] = {
    # name: file, content, keys of `data` beside files, what is said
    "semicolons with commas in every row": (
        "a.csv",
        cells(";").encode(),
        {"separator": ";"},
        "separator: semicolons",
    ),
    "tabs in a csv": ("a.csv", cells("\t").encode(), {"separator": "\t"}, "separator: tabs"),
    "bars in a tsv": ("a.tsv", cells("|").encode(), {"separator": "|"}, "separator: vertical"),
    "quotes that are text": (
        "a.tsv",
        swallowing().encode(),
        {"quoting": "none"},
        "line 12: a quote opens there and closes in line 52",
    ),
    "an inch mark alone": (
        "a.tsv",
        cells("\t").replace("The kettle number 0", '"The kettle" number 0').encode(),
        {"quoting": "none"},
        "quoting: none, so every line is a row (60 rows)",
    ),
    "no header": (
        "a.csv",
        quoted(header=False).encode(),
        {"header": False, "columns": ["column_1", "column_2"]},
        "'neg' stands 29 times in its own column",
    ),
    "no header, no quotes, semicolons": (
        "a.csv",
        cells(";", header="").encode(),
        {"separator": ";", "header": False, "columns": ["column_1", "column_2"]},
        "columns: column_1, column_2",
    ),
    "cp1252": (
        "a.csv",
        quoted().replace("broken", "“broken” — café").encode("cp1252"),
        {"encoding": "cp1252"},
        "“broken” — café",
    ),
    "UTF-16": ("a.csv", quoted().encode("utf-16"), {"encoding": "utf-16"}, "encoding: utf-16"),
    "UTF-16 without a mark": (
        "a.csv",
        quoted().encode("utf-16-le"),
        {"encoding": "utf-16-le"},
        "encoding: utf-16-le",
    ),
    "cyrillic": (
        "a.csv",
        re.sub(r"The \w+ ", "Это очень хороший фильм, мне понравилось ", quoted()).encode("cp1251"),
        {"encoding": "cp1251"},
        "Это очень хороший фильм",
    ),
    "rows in a field": (
        "a.json",
        json.dumps({"version": "1", "data": OBJECTS}).encode(),
        {"field": "data"},
        "one object with 60 objects there",
    ),
    "rows in an inner field": (
        "a.json",
        json.dumps({"meta": [{"by": "x"}], "set": {"rows": OBJECTS}}).encode(),
        {"field": "set.rows"},
        "field: set.rows",
    ),
    "as the suffix says": ("a.csv", quoted().encode(), {}, "kind: classification"),
    "a byte order mark": ("a.csv", quoted().encode("utf-8-sig"), {}, "kind: classification"),
    "nested objects": (
        "a.jsonl",
        lines_of(
            [
                {"doc": {"text": t, "n": n}, "label": {"name": name}}
                for n, (t, name) in enumerate(ROWS)
            ]
        ).encode(),
        {},
        "texts: 'doc.text'",
    ),
}


@pytest.mark.parametrize("case", list(CASES))
def test_every_row_is_read_as_it_was_written(case: str, here: Path) -> None:
    name, content, keys, said = CASES[case]
    (here / name).write_bytes(content)
    drafted = mtl("tasks", "new", "my/x", "--from", name)
    assert drafted.code == 0, drafted
    assert said in drafted.out
    data = yaml.safe_load((here / "my" / "x.yaml").read_text())["data"]
    assert data == {"files": {"train": f"../{name}"}, **keys}
    assert sizes("my/x.yaml") == 60
    shown = mtl("tasks", "show", "my/x.yaml", "-n", "60", "--json").json
    text_of = {row["texts"][0]: row["label"] for row in shown["rows"]}
    assert len(text_of) == shown["sizes"]["train"] == 48
    for line, name in text_of.items():
        number = int(line.split("number ")[1].split(",")[0])
        assert name == label(number)


def test_what_was_drafted_trains(here: Path, tiny: Callable[[str], str]) -> None:
    (here / "a.tsv").write_text(swallowing().replace("text\tlabel\n", ""))
    assert mtl("tasks", "new", "my/x", "--from", "a.tsv").code == 0
    line = ["--task", "my/x.yaml", "--model", tiny("roberta"), "--max-steps", "2"]
    said = mtl("train", *line, "--json")
    assert said.code == 0, said
    first = said.json["runs"][0]["ref"]
    # Another reading of the same file is another run.
    path = here / "my" / "x.yaml"
    path.write_text(path.read_text().replace('quoting: "none"', 'quoting: "double"'))
    again = mtl("train", *line, "--json").json["runs"][0]
    assert again["status"] == "done"
    assert again["ref"] != first


def test_what_is_said_goes_before_guesses(here: Path) -> None:
    (here / "a.tsv").write_text(swallowing())
    line = ["tasks", "new", "my/x", "--from", "a.tsv", "--json", "--out"]
    said = mtl(*line, "q.yaml", "--quoted").json
    assert said["task"]["data"]["quoting"] == "double"
    checked = mtl("tasks", "check", "q.yaml", "--near", "0", "--json").json["tasks"][0]
    (found,) = [f for f in checked["findings"] if f["check"] == "long-row"]
    assert (found["level"], found["count"]) == ("remark", 1)
    assert found["examples"][0]["place"] == "line 12 of a.tsv"
    (here / "b.csv").write_text(quoted(header=False))
    line = ["tasks", "new", "my/x", "--from", "b.csv", "--json", "--out"]
    said = mtl(*line, "h.yaml", "--columns", "what,verdict").json
    assert said["task"]["data"]["columns"] == ["what", "verdict"]
    assert (said["task"]["inputs"], said["task"]["label_column"]) == (["{what}"], "verdict")
    assert mtl(*line, "i.yaml", "--header").json["task"]["data"]["header"] is True
    (here / "c.csv").write_text(cells("^"))
    line = ["tasks", "new", "my/x", "--from", "c.csv", "--json", "--out"]
    refused(mtl(*line, "s.yaml"), "c.csv, line 2: 3 cells where the header names 1 columns")
    assert mtl(*line, "s.yaml", "--separator", "^").json["task"]["data"]["separator"] == "^"
    (here / "d.csv").write_text(cells("\t"))
    line = ["tasks", "new", "my/x", "--from", "d.csv", "--json", "--out"]
    assert mtl(*line, "t.yaml", "--separator", "tab").json["task"]["data"]["separator"] == "\t"


def test_old_task_files_over_such_files_are_told(here: Path) -> None:
    """What was drafted before these keys were known: the same file, without them."""
    (here / "a.tsv").write_text(swallowing())
    (here / "b.csv").write_text(quoted(header=False))
    for name, keys in (
        ("a.tsv", {}),
        ("b.csv", {"inputs": [f"{{{text(0)}}}"], "label_column": "neg"}),
    ):
        content: Mapping[str, Any] = {
            "id": "my/x",
            "data": {"files": {"train": name}},
            "kind": "classification",
            "inputs": ["{text}"],
            "labels": ["neg", "pos"],
            "metrics": ["accuracy"],
            **keys,
        }
        (here / f"{name}.yaml").write_text(json.dumps(content))
    refused(mtl("train", "--task", "a.tsv.yaml", "--model", "demo"), "line 12", "40 lines that")
    found = mtl("tasks", "check", "b.csv.yaml", "--near", "0", "--json")
    (finding,) = found.json["tasks"][0]["findings"]
    assert (found.code, finding["check"], finding["count"]) == (1, "header-row", 1)
    assert "`header: false`" in finding["text"]
    path = here / "b.csv.yaml"
    path.write_text(path.read_text().replace('"files"', '"header": true, "files"'))
    assert sizes("b.csv.yaml") == 59


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("a.csv", cells(";").encode(), ["--separator", ";"]),
        ("a.csv", cells("\t").encode(), ["--separator", "\\t"]),
        ("a.tsv", swallowing().encode(), ["--unquoted"]),
        ("a.csv", quoted().replace("dull", "“fâde”").encode("cp1252"), ["--encoding", "cp1252"]),
        ("a.csv", quoted().encode("utf-16"), ["--encoding", "utf-16"]),
        ("a.json", json.dumps({"data": OBJECTS}).encode(), ["--field", "data"]),
    ],
)
def test_what_an_error_says_to_write_works(
    name: str, content: bytes, options: list[str], here: Path
) -> None:
    (here / name).write_bytes(content)
    task = (
        f"id: my/x\ndata:\n  files: {{train: {name}}}\nkind: classification\n"
        'inputs: ["{text}"]\nlabels: [neg, pos]\nmetrics: [accuracy]\n'
    )
    (here / "x.yaml").write_text(task)
    said = mtl("tasks", "show", "x.yaml")
    refused(said, "below `data` in the task file")
    key = said.err.split("Write `")[1].split("`")[0]
    (here / "x.yaml").write_text(task.replace("\nkind", f"\n  {key}\nkind"))
    assert sizes("x.yaml") == 60
    assert mtl("tasks", "new", "my/y", "--from", name, *options).code == 0
    assert sizes("my/y.yaml") == 60


def test_cells_that_hold_lines_are_no_rows(here: Path) -> None:
    """Real line breaks, commas and quotes inside quotes; a column called as one of its values."""
    rows = [
        (f'{t}\nyes, and\n\nno, but 5"', ["spam", "ham"][n % 2]) for n, (t, _) in enumerate(ROWS)
    ]
    with (here / "a.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("text", "spam"), *rows])
    said = mtl("tasks", "new", "my/x", "--from", "a.csv", "--json")
    assert said.code == 0, said
    assert said.json["task"]["data"] == {"files": {"train": "../a.csv"}}
    assert sizes("my/x.yaml") == 60


def test_files_of_one_task_are_read_alike(here: Path) -> None:
    (here / "a.csv").write_text(cells(";"))
    (here / "b.csv").write_text(quoted())
    (here / "c.tsv").write_text(swallowing())
    (here / "d.tsv").write_text(cells("\t"))
    (here / "e.csv").write_bytes(quoted().replace("dull", "fâde").encode("cp1252"))
    (here / "f.csv").write_text(quoted().replace("dull", "fâde"))

    def new(train: str, test: str) -> Any:
        out = f"{train}-{test}.yaml"
        return mtl("tasks", "new", "my/x", "--from", train, "--test", test, "--out", out, "--json")

    refused(new("a.csv", "b.csv"), "a.csv: separator ';'", "b.csv: separator as its suffix says")
    refused(new("e.csv", "f.csv"), "e.csv: encoding 'cp1252'", "f.csv: encoding UTF-8")
    assert not list(here.glob("*.yaml"))
    assert new("c.tsv", "d.tsv").json["task"]["data"]["quoting"] == "none"
    assert new("e.csv", "b.csv").json["task"]["data"]["encoding"] == "cp1252"
    assert set(new("b.csv", "d.tsv").json["task"]["data"]) == {"files"}


def test_two_separators_that_both_fit(here: Path) -> None:
    (here / "a.csv").write_text(
        cells(";", header="text, whole;label\n").replace(", as it was,", "")
    )
    (here / "b.csv").write_text("text,all;label\n" + "a cat,a dog;neg\na dog,a cat;pos\n" * 30)
    assert mtl("tasks", "new", "my/a", "--from", "a.csv", "--json").json["task"]["inputs"] == [
        "{text, whole}"
    ]
    said = mtl("tasks", "new", "my/b", "--from", "b.csv")
    refused(said, "commas and semicolons", "--separator semicolon")
    assert mtl("tasks", "new", "my/b", "--from", "b.csv", "--separator", "semicolon").code == 0


def test_the_exact_name_goes_before_another_case(here: Path) -> None:
    def write(header: str) -> None:
        rows = "".join(f"{'xyz'[n % 3]},{name},{t[:13]} x\n" for n, (t, name) in enumerate(ROWS))
        (here / "a.csv").write_text(f"{header}\n{rows}")

    def new(*argv: str) -> Any:
        return mtl("tasks", "new", "my/x", "--from", "a.csv", "--out", f"{len(argv)}.yaml", *argv)

    write("Label,label,text")
    assert "label: column 'label'" in new().out
    write("Label,LABEL,text")
    refused(new("--json"), "Label and LABEL differ in their case alone", "--label Label")
    assert "label_column" in new("--json", "--label", "LABEL").out
