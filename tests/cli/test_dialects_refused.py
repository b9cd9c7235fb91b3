"""Files that are mended first, keys and options that mean nothing, names that are taken."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from cli_bench import mtl, refused
from dialects_bench import OBJECTS, ROWS, lines_of, quoted, sizes


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
