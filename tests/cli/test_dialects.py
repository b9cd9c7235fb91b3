"""Files that their suffix does not describe: found out by ``new``, written down, read alike."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_bench import mtl, refused

NOUNS = ["kettle", "lamp", "train", "garden", "printer", "soup"]


def text(n: int) -> str:
    return f"The {NOUNS[n % 6]} number {n}, as it was, came back dull and broken"


def label(n: int) -> str:
    return ["neg", "pos"][n % 2]


ROWS = [(text(n), label(n)) for n in range(60)]


def cells(separator: str, *, header: str = "text{}label\n") -> str:
    return header.format(separator) + "".join(f"{t}{separator}{name}\n" for t, name in ROWS)


def quoted(*, header: bool = True) -> str:
    return ("text,label\n" if header else "") + "".join(f'"{t}",{name}\n' for t, name in ROWS)


def swallowing() -> str:
    """A TSV without quoting: row 10 begins with a quote, row 50 ends with an inch mark."""
    lines = cells("\t").splitlines()
    lines[11] = f'"Oh, that {text(10)}\tneg'
    lines[51] = f'{text(50)} of 5"\tneg'
    return "\n".join(lines) + "\n"


def lines_of(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


OBJECTS = [{"text": t, "label": name} for t, name in ROWS]

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


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sizes(task: str) -> int:
    """Rows of a task, after a check that finds nothing at all."""
    report = mtl("tasks", "check", task, "--near", "0", "--json").json["tasks"][0]
    assert report["findings"] == []
    return sum(split["rows"] for split in report["splits"])


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


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        ("a.jsonl", lines_of([{**row, "text": row["text"] + " \ud83d x"} for row in OBJECTS]), 60),
        ("a b.json", json.dumps([{**row, "text": row["text"] + " \ude00"} for row in OBJECTS]), 60),
        ("cols.json", json.dumps({k: [row[k] for row in OBJECTS] for k in ("text", "label")}), 60),
        ("index.json", json.dumps({f"row{n}": row for n, row in enumerate(OBJECTS)}), 60),
        (
            "frame.json",
            json.dumps({k: {str(n): row[k] for n, row in enumerate(OBJECTS)} for k in OBJECTS[0]}),
            60,
        ),
        (
            "split.json",
            json.dumps({"columns": ["text", "label"], "index": [*range(60)], "data": ROWS}),
            60,
        ),
    ],
)
def test_the_command_that_is_advised_mends_the_file(
    name: str, content: str, rows: int, here: Path
) -> None:
    (here / name).write_text(content)
    said = mtl("tasks", "new", "my/x", "--from", name)
    refused(said, name)
    command = said.err.split("`")[1]
    assert command.startswith("python -c ")
    shell = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(command, shell=True, check=True, cwd=here, env=shell)
    (mended,) = {path.name for path in here.iterdir()} - {name}
    assert mtl("tasks", "new", "my/x", "--from", mended).code == 0
    assert sizes("my/x.yaml") == rows


@pytest.mark.parametrize(
    ("data", "part"),
    [
        ('{files: {train: a.csv}, separator: ";;"}', "must be one character"),
        ("{files: {train: a.csv}, quoting: single}", "Unknown quoting 'single'"),
        ("{files: {train: a.csv}, header: false}", "both or neither of `header: false`"),
        ("{files: {train: a.csv}, columns: [a, b]}", "both or neither of `header: false`"),
        ("{files: {train: a.csv}, header: no, columns: [a]}", "it must be true or false"),
        ("{files: {train: a.csv}, header: false, columns: [a, a]}", "a list of different names"),
        ("{files: {train: a.csv}, encoding: latin-99}", "which Python does not know"),
        ("{files: {train: a.csv}, encoding: rot13}", "which Python does not know"),
        ("{files: {train: a.csv}, field: data}", "'field', which is for .json, .jsonl"),
        ("{files: {train: a.json}, separator: ;}", "'separator', which is for .csv, .tsv"),
        ("{files: {train: a.parquet}, encoding: cp1252}", "'encoding', which is for .csv"),
        ("{files: {train: a.csv}, seperator: ;}", "Did you mean 'separator'"),
    ],
)
def test_keys_that_mean_nothing(data: str, part: str, here: Path) -> None:
    (here / "x.yaml").write_text(
        f"id: my/x\ndata: {data}\nkind: classification\n"
        'inputs: ["{text}"]\nlabels: [a, b]\nmetrics: [accuracy]\n'
    )
    refused(mtl("tasks", "show", "x.yaml"), "x.yaml", part)


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["--separator", "::"], "must be one character"),
        (["--encoding", "nope"], "which Python does not know"),
        (["--field", "data"], "which is for .json"),
        (["--columns", "a", "b"], "Say --no-header if it is a row"),
        (["--columns", "a", "b", "--header"], "those of a file without header"),
        (["--columns", "a", "b", "c", "--no-header"], "2 cells where `columns` names 3"),
    ],
)
def test_options_that_mean_nothing(argv: list[str], part: str, here: Path) -> None:
    (here / "a.csv").write_text(quoted())
    refused(mtl("tasks", "new", "my/x", "--from", "a.csv", *argv), part)
    assert not list(here.rglob("*.yaml"))


def test_text_that_was_decoded_wrongly_is_a_remark(here: Path) -> None:
    wrong = quoted().replace("dull", "caf\u00e9".encode().decode("cp1252"))
    (here / "a.csv").write_text(wrong)
    assert mtl("tasks", "new", "my/x", "--from", "a.csv").code == 0
    said = mtl("tasks", "check", "my/x.yaml", "--near", "0", "--json")
    found = said.json["tasks"][0]["findings"]
    assert {(f["check"], f["level"], f["count"] == f["of"]) for f in found} == {
        ("misread-text", "remark", True)
    }
    (here / "a.csv").write_text(quoted().replace("dull", "café, “naïve” — Ångström, 中文"))
    assert sizes("my/x.yaml") == 60


@pytest.mark.parametrize("task", ["my/_joint", "_JOINT/x", "my/x.yaml"])
def test_names_that_are_taken(task: str, here: Path) -> None:
    (here / "a.csv").write_text(quoted())
    refused(mtl("tasks", "new", task, "--from", "a.csv", "--out", "x.yaml"), task, "is taken")
    assert not (here / "x.yaml").exists()


def test_the_name_of_joint_runs_is_reserved() -> None:
    from mtl.runs.run import JOINT_NAME as NAME
    from mtl.tasks.spec import RESERVED

    assert NAME in RESERVED


def test_labels_that_yaml_wants_escaped(here: Path) -> None:
    names = ["a\u2028b", "c\x84", "🙂\u200b", "no\x7f"]
    rows = [{"text": t, "label": names[n % 4]} for n, (t, _) in enumerate(ROWS)]
    (here / "a.jsonl").write_text(lines_of(rows))
    said = mtl("tasks", "new", "my/x", "--from", "a.jsonl", "--json")
    assert said.code == 0, said
    assert sorted(said.json["task"]["labels"]) == sorted(names)
    assert mtl("tasks", "check", "my/x.yaml", "--near", "0").code == 0


def test_nothing_is_left_where_the_draft_cannot_be_shown(here: Path) -> None:
    from mtl.cli.tasks import main

    (here / "a.csv").write_text(quoted().replace("neg", "שלילי"))
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    line = ["new", "my/x", "--from", "a.csv"]
    with redirect_stdout(narrow), pytest.raises(UnicodeEncodeError):
        main(line)
    assert not list(here.rglob("*.yaml"))
    with redirect_stdout(narrow):
        assert main([*line, "--json"]) == 0
    assert sizes("my/x.yaml") == 60
