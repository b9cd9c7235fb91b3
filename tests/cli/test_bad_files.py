"""Bad files: every one is one clear message with the file and the row, and nothing is written."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_bench import entries, mtl, refused

GOOD = "".join(f"the cat sees bird {n},{'ab'[n % 2]}\n" for n in range(40))
HEADER = "text,label\n"
LONG = "x" * 10_485_760


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def row(n: int) -> dict[str, object]:
    return {"text": f"the cat {n}", "label": "ab"[n % 2]}


def archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("xl/workbook.xml", HEADER + GOOD)
    return stream.getvalue()


def parquet(columns: dict[str, list[object]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as files

    stream = io.BytesIO()
    files.write_table(pa.table(columns), stream)
    return stream.getvalue()


MANY = [f"the cat {n}" for n in range(40)]
BAD: dict[str, tuple[str, str | bytes | Callable[[], bytes], str, str]] = {
    # name: file, content, where, what
    "a quote that never closes": (
        "t.csv",
        HEADER + GOOD + 'a dog,"a\n' + GOOD,
        "line 42",
        "Check the quotes",
    ),
    "a quote that closes too soon": (
        "t.csv",
        HEADER + GOOD + '"the "old" cat",a\n',
        "line 42",
        "Check the quotes",
    ),
    "a quote that closes rows later": (
        "t.csv",
        HEADER + 'the dog,"a\n' + GOOD + 'the cat,"b"\n',
        "line 2",
        "Check the quotes",
    ),
    "an unquoted comma": ("t.csv", HEADER + GOOD + "yes, a dog,a\n", "line 42", "3 cells where"),
    "a row with a cell missing": ("t.csv", HEADER + GOOD + "the dog\n", "line 42", "1 cells where"),
    "semicolons": ("t.csv", "text;label\nthe cat;a\n", "line 1", '`separator: ";"`'),
    "semicolons beside commas": (
        "t.csv",
        "text;label\n" + "the cat, bird and dog;a\nyes, the dog;b\n" * 20,
        "line 1",
        '`separator: ";"`',
    ),
    "rows between two quotes": (
        "t.tsv",
        (HEADER + GOOD + '"Oh, no" a dog,a\n').replace(",", "\t"),
        "line 42",
        "`quoting: none`",
    ),
    "rows swallowed by two quotes": (
        "t.tsv",
        (HEADER + GOOD + '"the dog,a\n' + GOOD + 'a board of 5",b\n' + GOOD).replace(",", "\t"),
        "line 42",
        "41 lines that look like rows are no rows (81 are left)",
    ),
    "rows of a CSV swallowed by two quotes": (
        "t.csv",
        HEADER + GOOD + '"the dog,a\n\nthe dog,b\na board of 5",b\n' + GOOD,
        "line 42",
        "2 lines that look like rows",
    ),
    "tabs in a csv": ("t.csv", "text\tlabel\nthe cat\ta\n", "line 1", '`separator: "\\t"`'),
    "two columns of one name": ("t.csv", "text,text\na,b\n", "line 1", "two columns are called"),
    "a cell of 10 MB": ("t.csv", HEADER + GOOD + LONG + ",a\n", "line 42", "1,048,576 characters"),
    "a line of 10 MB": (
        "t.jsonl",
        lines(*map(row, range(40)), {"text": LONG, "label": "a"}),
        "line 41",
        "1,048,576 characters",
    ),
    "Latin-1": (
        "t.csv",
        (HEADER + GOOD).encode() + b"caf\xe9,a\n",
        "line 42",
        "`encoding: cp1252`",
    ),
    "two encodings": (
        "t.csv",
        (HEADER + GOOD + "café,a\nthé,b\n").encode() + b"caf\xe9,a\n",
        "line 44",
        "Write line 44 again",
    ),
    "half of an emoji": (
        "t.jsonl",
        lines(*map(row, range(40)), {"text": "the cat \ud83d", "label": "a"}),
        "line 41",
        "half of a surrogate pair",
    ),
    "half of an emoji in a list": (
        "t.jsonl",
        lines(*({**row(n), "more": [{"\ude00": 1}]} for n in range(3))),
        "line 1",
        "(3 such rows)",
    ),
    "half of an emoji in a name": (
        "t.jsonl",
        lines({**row(0), "\ude00": 1}),
        "t.jsonl",
        "the name of column '\\ude00'",
    ),
    "rows in a field": (
        "t.json",
        json.dumps({"version": 1, "data": [row(n) for n in range(40)]}),
        "t.json",
        "`field: data`",
    ),
    "columns in an object": (
        "t.json",
        json.dumps({"text": ["a", "b"], "label": ["a", "b"]}),
        "t.json",
        "a list per column",
    ),
    "brackets without end": ("t.json", "[" * 100_000, "t.json", "nested too deeply"),
    "objects as texts": (
        "t.jsonl",
        lines(*({"text": {"en": "x"}, "label": "ab"[n % 2]} for n in range(40))),
        "t.jsonl",
        "objects with the fields 'text.en'",
    ),
    "objects as labels": (
        "t.jsonl",
        lines(*({"text": "x", "label": {"name": "a"}} for n in range(40))),
        "t.jsonl",
        "`label_column: label.name`",
    ),
    "lists as texts": (
        "t.jsonl",
        lines(*({"text": ["the", "cat"], "label": "ab"[n % 2]} for n in range(40))),
        "t.jsonl",
        "lists, not texts",
    ),
    "UTF-16": ("t.csv", codecs.BOM_UTF16_LE + HEADER.encode("utf-16-le"), "line 1", "UTF-16"),
    "UTF-16 without a mark": ("t.csv", (HEADER + GOOD).encode("utf-16-le"), "line 1", "NUL"),
    "a NUL character": ("t.csv", HEADER + GOOD + "a \0 dog,a\n", "line 42", "NUL"),
    "a NUL character in JSON lines": ("t.jsonl", lines(row(0)) + "\0\0\n", "line 2", "NUL"),
    "a spreadsheet": ("t.csv", archive, "line 1", "spreadsheet"),
    "a compressed file": ("t.tsv", lambda: gzip.compress(b"a\tb\n"), "line 1", "gunzip"),
    "parquet called csv": ("t.csv", lambda: parquet({"text": ["a"]}), "line 1", ".parquet"),
    "csv called parquet": ("t.parquet", HEADER + GOOD, "t.parquet", "no parquet file"),
    "half a parquet file": (
        "t.parquet",
        lambda: parquet({"text": list(MANY), "label": list("ab" * 20)})[:-40],
        "t.parquet",
        "damaged",
    ),
    "an empty file": ("t.csv", "", "t.csv", "is empty"),
    "an empty JSON lines file": ("t.jsonl", "\n", "t.jsonl", "is empty"),
    "names of columns only": ("t.csv", HEADER, "t.csv", "is empty"),
    "half a line of JSON": (
        "t.jsonl",
        lines(row(0), row(1)) + '{"text": "th',
        "line 3",
        "no valid",
    ),
    "a list among objects": ("t.jsonl", lines(row(0), ["the cat", "a"]), "line 2", "an object"),
    "numbers among texts": (
        "t.jsonl",
        lines(*map(row, range(40)), {"text": 7, "label": "a"}),
        "line 41",
        "holds 7 (int)",
    ),
    "texts among numbers": (
        "t.jsonl",
        lines(*({**row(n), "label": n % 2} for n in range(40)), {"text": "x", "label": "a"}),
        "line 41",
        "holds 'a' (str)",
    ),
    "an object among texts": (
        "t.jsonl",
        lines(*map(row, range(40)), {"text": {"en": "x"}, "label": "a"}),
        "line 41",
        "(dict)",
    ),
    "no label": ("t.jsonl", lines(*map(row, range(40)), {"text": "x"}), "line 41", "no label"),
    "an unknown label": ("t.csv", HEADER + GOOD + "the dog,c\n", "line 42", "'c' is none of"),
    "a number as a label": ("t.csv", HEADER + GOOD + "the dog,2\n", "line 42", "2 is none of"),
    "no such column": ("t.csv", "txt,label\n" + GOOD, "t.csv", "no column 'text'"),
    "nulls in parquet": (
        "t.parquet",
        lambda: parquet({"text": [*MANY, "x"], "label": [*"ab" * 20, None]}),
        "row 40",
        "no label",
    ),
}


def task_over(folder: Path, name: str, content: str | bytes | Callable[[], bytes]) -> Path:
    made = content() if callable(content) else content
    (folder / name).write_bytes(made.encode() if isinstance(made, str) else made)
    (folder / "good.csv").write_text(HEADER + GOOD)
    path = folder / "task.yaml"
    path.write_text(
        f"id: own/t\ndata: {{files: {{train: {name}, dev: good.csv, test: good.csv}}}}\n"
        'kind: classification\ninputs: ["{text}"]\nlabels: [a, b]\nmetrics: [accuracy]\n'
    )
    return path


@pytest.mark.parametrize("case", list(BAD))
def test_bad_files(case: str, tmp_path: Path) -> None:
    name, content, where, what = BAD[case]
    task = task_over(tmp_path, name, content)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    said = mtl("tasks", "show", task, "--split", "dev")
    refused(said, where, what, name)
    assert len(said.err) < 700
    assert said.err.count("\n") == 1
    checked = mtl("tasks", "check", task, "--json")
    assert (checked.code, checked.err) == (1, "")
    (finding,) = checked.json["tasks"][0]["findings"]
    assert finding["level"] == "problem"
    told = finding["text"] + "".join(example["place"] for example in finding["examples"])
    for part in (where, name):
        assert part in told
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize(
    ("files", "protocol", "parts"),
    [
        ("{train: nope.csv}", "official", ["'train'", "nope.csv", "is missing"]),
        ("{validation: good.csv}", "holdout", ["none of the splits train", "validation"]),
        ("{train: good.csv}", "official", ["none of the splits validation, dev", "good.csv"]),
        ("{train: good.csv, dev: good.csv}", "official", ["none of the splits test"]),
        ("{train: good.csv}", "scalearn", ["none of the splits validation, dev"]),
    ],
)
def test_missing_splits(files: str, protocol: str, parts: list[str], tmp_path: Path) -> None:
    task = task_over(tmp_path, "t.csv", HEADER + GOOD)
    task.write_text(
        task.read_text().replace("{train: t.csv, dev: good.csv, test: good.csv}", files)
    )
    refused(mtl("tasks", "show", task, "--protocol", protocol), "own/t", *parts)
    said = mtl("tasks", "check", task, "--protocol", protocol, "--json")
    assert said.code == 1
    (problem,) = said.json["tasks"][0]["problems"]
    for part in parts:
        assert part in problem


def test_training_says_the_same_before_anything_is_written(mini: Path, tmp_path: Path) -> None:
    task = task_over(tmp_path, "t.csv", HEADER + GOOD + "the dog,c\n")
    refused(mtl("train", "--task", task), "line 42", "t.csv", "'c' is none of")
    assert not entries(mini)
    assert not (tmp_path / "runs").exists()


def test_files_are_named_without_detours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task in ``my`` names ``../data/x.csv``; messages say ``data/x.csv``, where it is that."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x.csv").write_text(HEADER + GOOD + GOOD)
    said = mtl("tasks", "new", "my/x", "--from", "data/x.csv", "--out", "my/x.yaml")
    assert '"../data/x.csv"' in (tmp_path / "my" / "x.yaml").read_text(), said
    told = mtl("tasks", "check", "my/x.yaml")
    assert "my/.." not in told.out + told.err
    assert "data/x.csv" in told.out + told.err
    # behind a link '..' is somewhere else
    (tmp_path / "far" / "deep").mkdir(parents=True)
    (tmp_path / "my").rename(tmp_path / "far" / "deep" / "my")
    (tmp_path / "data").rename(tmp_path / "far" / "deep" / "data")
    (tmp_path / "my").symlink_to(tmp_path / "far" / "deep" / "my")
    again = mtl("tasks", "check", "my/x.yaml")
    assert (again.code, again.out.replace("my/../", "")) == (told.code, told.out)
