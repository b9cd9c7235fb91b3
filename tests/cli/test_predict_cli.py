"""``mtl.predict``: files in, files out, bit for bit what is stored; kills, faults, other forms."""

from __future__ import annotations

import csv
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from cli_bench import TASKS, Said, mtl, process, refused

from mtl.predict.explain import Explained
from mtl.predict.job import Job, Outcome, outcome_text
from mtl.predict.tables import to_table
from mtl.predict.writing import write_part
from mtl.tasks import load_task
from mtl.zoo import Entry, open_zoo, read_predictions

SHORT = ["--epochs", "1", "--max-steps", "4"]


def stored(zoo: Path, task: str, kind: str = "adapter") -> tuple[Entry, Any]:
    (entry,) = open_zoo(zoo).entries(kind=kind, task=task)
    return entry, read_predictions(entry.folder)


def test_an_empty_cell_of_numbers_stays_empty(tmp_path: Path) -> None:
    """A number that is not there is none; one that is no number says so."""
    table = pa.table({"a": pa.array([1.5, None, float("nan")]), "b": pa.array([1, None, 3])})
    write_part(tmp_path / "part", table, ".csv")
    assert (tmp_path / "part").read_text() == "1.5,1\n,\nnan,3\n"


def test_rows_as_dicts_have_the_columns_of_all_of_them() -> None:
    rows: list[dict[str, str]] = [
        {"premise": "a", "hypothesis": ""},
        {"premise": "b", "hypothesis": "c", "user": "7"},
    ]
    for given in (rows, rows[::-1]):
        found = to_table(load_task("demo/entail"), given).to_pylist()
        assert sorted(found, key=lambda row: row["premise"])[1] == rows[1]
        assert {*found[0]} == {*found[1]} == {"premise", "hypothesis", "user"}


def predict(entry: str, source: Path, target: Path, *more: object) -> Said:
    return mtl("predict", entry, "--input", source, "--output", target, *more)


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of answers."""
    if path.suffix == ".parquet":
        return parquet.read_table(path).to_pylist()
    if path.suffix in {".jsonl", ".ndjson"}:
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t" if path.suffix == ".tsv" else ","))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_the_test_file_gets_the_stored_predictions(
    suffix: str, stocked: Path, suite_folder: Path, tmp_path: Path
) -> None:
    entry, kept = stored(stocked, "mini/same")
    target = tmp_path / f"out{suffix}"
    said = predict(entry.ref, suite_folder / "same_test.csv", target, "--scores")
    assert said.code == 0, said
    assert "40 answers" in said.out
    rows = read(target)
    labels = ("other", "same")
    assert [row["prediction"] for row in rows] == [labels[place] for place in kept.prediction]
    assert list(rows[0]) == ["a", "b", "label", "prediction", "score_other", "score_same"]
    logits = kept.scores.astype(np.float64)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
    found = np.array([[row["score_other"], row["score_same"]] for row in rows], dtype=np.float32)
    np.testing.assert_array_equal(found, expected)  # written so that they can be read back
    assert sorted(path.name for path in tmp_path.glob("*out*")) == [target.name]


def test_another_precision_is_by_request(stocked: Path, suite_folder: Path, tmp_path: Path) -> None:
    import mtl as face
    from mtl.errors import RequestError

    entry, kept = stored(stocked, "mini/shared")
    source = suite_folder / "shared_test.jsonl"
    found = {}
    for name, more in {
        "own": [],
        "fp32": ["--precision", "fp32"],
        "bf16": ["--precision", "bf16"],
    }.items():
        said = predict(entry.ref, source, tmp_path / f"{name}.csv", *more)
        assert said.code == 0, said
        rows = read(tmp_path / f"{name}.csv")
        found[name] = np.array([row["prediction"] for row in rows], dtype=np.float32)
    np.testing.assert_array_equal(found["own"], kept.prediction.astype(np.float32))
    np.testing.assert_array_equal(found["fp32"], found["own"])
    assert not np.array_equal(found["bf16"], found["own"])
    np.testing.assert_allclose(found["bf16"], found["own"], atol=0.05)
    before = (entry.folder / "manifest.json").read_text()
    said = mtl("zoo", "verify", entry.ref, "--precision", "bf16", "--json")
    assert said.code == 0, said
    assert 0 < said.json["verified"][0]["max_logit_difference"] < 0.05
    assert (entry.folder / "manifest.json").read_text() == before  # nothing is recorded of it
    said = mtl("zoo", "verify", entry.ref, "--precision", "fp32", "--json")
    assert said.json["verified"][0]["max_logit_difference"] == 0
    assert (entry.folder / "manifest.json").read_text() != before
    with pytest.raises(RequestError, match="Did you mean 'bf16'"):
        face.load(entry.ref, zoo=stocked, precision="bf61")


def test_parts_of_another_precision_are_of_another_job(
    stocked: Path, suite_folder: Path, tmp_path: Path
) -> None:
    import mtl as face
    from mtl.predict.job import Job, _identity

    entry, _ = stored(stocked, "mini/same")
    job = Job(suite_folder / "same_test.csv", tmp_path / "out.csv")
    own, half = (
        _identity(face.load(entry.ref, zoo=stocked, precision=p), job) for p in (None, "bf16")
    )
    assert half == {**own, "precision": "bf16"}


def test_numbers_are_written_as_they_are_stored(
    stocked: Path, suite_folder: Path, tmp_path: Path
) -> None:
    entry, kept = stored(stocked, "mini/shared")
    for suffix in (".csv", ".jsonl", ".parquet"):
        target = tmp_path / f"out{suffix}"
        said = predict(entry.ref, suite_folder / "shared_test.jsonl", target, "--json")
        assert said.json["rows"] == 40
        found = np.array([row["prediction"] for row in read(target)], dtype=np.float32)
        np.testing.assert_array_equal(found, kept.prediction)


def test_pieces_are_the_whole(stocked: Path, suite_folder: Path, tmp_path: Path) -> None:
    """Rows by rows, whatever the format they come in, with columns and order kept."""
    from mtl import load
    from mtl.predict.job import Job, answer_file
    from mtl.tasks.dialect import Dialect

    entry, _ = stored(stocked, "mini/same")
    model = load(entry)
    rows = read(suite_folder / "same_test.csv")
    table = pa.Table.from_pylist(rows)
    parquet.write_table(table, tmp_path / "in.parquet", row_group_size=7)
    (tmp_path / "in.json").write_text(json.dumps(rows))
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    quoted = "".join(f"{row['a']}|{row['b']}\n" for row in rows)
    (tmp_path / "in.csv").write_text(quoted, encoding="utf-16")
    plain = Dialect(separator="|", header=False, columns=("a", "b"), encoding="utf-16")
    whole = [row["prediction"] for row in rows] if "prediction" in rows[0] else None
    for name in ("in.parquet", "in.json", "in.jsonl", "in.csv"):
        for size in (1000, 9, 40):
            target = tmp_path / f"{name}-{size}.parquet"
            dialect = plain if name == "in.csv" else Dialect()
            job = Job(tmp_path / name, target, dialect=dialect, rows=size)
            found = answer_file(model, job)
            answers = [row["prediction"] for row in read(target)]
            whole = whole or answers
            assert answers == whole
            assert (found.rows, found.kept, sum(found.counts.values())) == (40, 0, 40)
            assert [row["a"] for row in read(target)] == [row["a"] for row in rows]


def test_a_joint_model_and_a_composition_answer_and_explain(
    stocked: Path, suite_folder: Path, tmp_path: Path
) -> None:
    source = suite_folder / "same_test.csv"
    assert mtl("compose", "--target", "same", *SHORT).code == 0
    said = predict("same/scalearn/seed0", source, tmp_path / "a.csv", "--explain", "--json")
    told = said.json["explained"]
    assert told["sources"] == ["mini/mood", "mini/shared", "mini/same"]
    ((name, (rows, shares)),) = told["groups"].items()
    assert (name, rows) == ("all rows", 40)
    assert sum(shares) == pytest.approx(1)
    assert mtl("compose", "--target", "same", "--method", "fusion", *SHORT).code == 0
    said = predict("same/fusion/seed0", source, tmp_path / "b.csv", "--explain", "--json")
    told = said.json["explained"]
    assert told["kind"] == "attention"
    groups = told["groups"]
    counts = {name: count for name, count in said.json["counts"].items() if count}
    assert {name: rows for name, (rows, _) in groups.items()} == {"all rows": 40, **counts}
    assert all(sum(shares) == pytest.approx(1, abs=1e-5) for _, shares in groups.values())
    said = predict("same/pfeiffer/seed0", source, tmp_path / "c.csv", "--explain")
    assert "No source has a share of its own" in said.out
    joint = ["--suite", "mini", "--method", "adapter-m", *SHORT]
    assert mtl("joint", *joint).code == 0
    refused(predict("_joint/adapter-m/seed0", source, tmp_path / "d.csv"), "answers 3 tasks")
    said = predict("_joint/adapter-m/seed0", source, tmp_path / "d.csv", "--of", TASKS[0])
    assert said.code == 0


def test_shares_of_pieces_add_up() -> None:
    one = Explained("attention", ("a", "b"), {"yes": (1, (1.0, 0.0)), "all rows": (2, (0.5, 0.5))})
    two = Explained("attention", ("a", "b"), {"yes": (3, (0.2, 0.8)), "no": (1, (0.0, 1.0))})
    both = one.with_(two)
    assert both.groups["yes"] == (4, pytest.approx((0.4, 0.6)))
    assert both.groups["no"] == (1, (0.0, 1.0))
    assert Explained.from_dict(json.loads(json.dumps(both.to_dict()))) == both


def test_a_killed_job_goes_on_and_gives_the_same_file(
    stocked: Path, suite_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtl import load
    from mtl.errors import RequestError
    from mtl.predict import job as jobs
    from mtl.predict.job import Job, answer_file

    entry, _ = stored(stocked, "mini/same")
    model, source = load(entry), suite_folder / "same_test.csv"
    whole = tmp_path / "whole.csv"
    answer_file(model, Job(source, whole, scores=True, rows=9))
    broken = Job(source, tmp_path / "broken.csv", scores=True, rows=9)
    real, done = jobs.write_part, []

    def stop(*args: Any) -> None:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(args)
        real(*args)

    monkeypatch.setattr(jobs, "write_part", stop)
    with pytest.raises(KeyboardInterrupt):
        answer_file(model, broken)
    monkeypatch.setattr(jobs, "write_part", real)
    assert not broken.target.exists()
    other = Job(source, broken.target, rows=9)
    with pytest.raises(RequestError, match="parts of another job"):
        answer_file(model, other)
    found = answer_file(model, broken)
    assert (found.rows, found.kept) == (40, 18)
    assert broken.target.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "broken.csv.parts").exists()
    with pytest.raises(RequestError, match="--overwrite"):
        answer_file(model, broken)


@pytest.mark.slow
def test_a_killed_process_goes_on(stocked: Path, suite_folder: Path, tmp_path: Path) -> None:
    head, *lines = (suite_folder / "same_test.csv").read_text().splitlines()
    source = tmp_path / "many.csv"
    source.write_text("\n".join([head, *lines * 5000]) + "\n")
    line = ["same/pfeiffer/seed0", "--input", source, "--output", tmp_path / "out.csv"]
    places = {key: os.environ[key] for key in ("MTL_ZOO", "MTL_MODEL", "MTL_TASKS")}
    first = process("predict", *line, **places)
    parts = tmp_path / "out.csv.parts"
    while not list(parts.glob("000001.csv")):
        assert first.poll() is None, first.communicate()
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.wait()
    said = mtl("predict", *line, "--json")
    assert said.code == 0, said
    assert said.json["rows"] == 40 * 5000
    assert said.json["kept"] >= 1 << 16
    assert len(read(tmp_path / "out.csv")) == 40 * 5000


def wrong_cells(folder: Path) -> Path:
    (folder / "in.csv").write_text("a,b\ncat,dog\ncat\n")
    return folder / "in.csv"


def no_column(folder: Path) -> Path:
    (folder / "in.csv").write_text("a,bb\ncat,dog\n")
    return folder / "in.csv"


def no_row(folder: Path) -> Path:
    (folder / "in.csv").write_text("a,b\n")
    return folder / "in.csv"


def latin(folder: Path) -> Path:
    (folder / "in.csv").write_bytes("a,b\ncat,d\xf6g\n".encode("latin-1"))
    return folder / "in.csv"


def zipped(folder: Path) -> Path:
    (folder / "in.csv").write_bytes(b"PK\x03\x04rest")
    return folder / "in.csv"


def no_parquet(folder: Path) -> Path:
    (folder / "in.parquet").write_bytes(b"PAR1 not really")
    return folder / "in.parquet"


def taken(folder: Path) -> Path:
    (folder / "in.csv").write_text("a,b,prediction\ncat,dog,x\n")
    return folder / "in.csv"


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (wrong_cells, ["in.csv, line 3: 1 cells where the header names 2 columns"]),
        (no_column, ["no column 'b', only a, bb", "It reads 2 columns: a, b"]),
        (no_row, ["holds no row"]),
        (latin, ["line 2", "0xf6", "cp1252"]),
        (zipped, ["a zip archive"]),
        (no_parquet, ["Cannot read"]),
        (taken, ["a column 'prediction' already", "--column NAME"]),
        (lambda folder: folder / "gone.csv", ["gone.csv is not there"]),
        (lambda folder: folder, ["is a folder, not a file"]),
    ],
)
def test_what_cannot_be_answered_is_one_message_and_no_file(
    make: Callable[[Path], Path], parts: list[str], stocked: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    source = make(folder)
    before = sorted(folder.iterdir())
    refused(predict("same/pfeiffer/seed0", source, folder / "out.csv"), *parts)
    assert sorted(folder.iterdir()) == before


def test_wrong_options_are_said_before_a_model_is_loaded(stocked: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("a,b\ncat,dog\n")
    entry = "same/pfeiffer/seed0"
    refused(predict(entry, source, tmp_path / "out.xlsx"), "its suffix must be one of")
    refused(predict(entry, source, tmp_path / "out.parqet"), "Did you mean '.parquet'")
    refused(predict(entry, source, source), "is the input itself")
    taken = tmp_path / "taken.csv"
    taken.write_text("")
    refused(predict("same/pfeifer/seed0", source, taken), "there already; --overwrite replaces it")
    refused(predict(entry, source, tmp_path / "o.csv", "--separator", "::"), "one character")
    refused(predict(entry, source, tmp_path / "o.csv", "--encoding", "utf-9"), "Python")
    refused(predict("same/pfeifer/seed0", source, tmp_path / "o.csv"), "same/pfeiffer/seed0")


def test_an_entry_is_named_by_its_folder_or_that_of_its_zoo(
    stocked: Path, suite_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry, _ = stored(stocked, "mini/same")
    monkeypatch.setenv("MTL_ZOO", str(tmp_path / "nothing"))
    source = suite_folder / "same_test.csv"
    assert predict(str(entry.folder), source, tmp_path / "one.csv").code == 0
    refused(predict(str(stocked), source, tmp_path / "two.csv"), "3 entries that can be loaded")
    for task in ("mini/mood", "mini/shared"):
        open_zoo(stocked).remove(stored(stocked, task)[0].ref)
    assert predict(str(stocked), source, tmp_path / "two.csv").code == 0
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()


def test_of_many_labels_those_that_were_never_the_answer_are_counted(tmp_path: Path) -> None:
    job = Job(tmp_path / "in.csv", tmp_path / "out.csv")
    few = outcome_text(Outcome(rows=3, answers=3, counts={"a": 3, "b": 0}), job)
    assert [line.split()[:2] for line in few.splitlines()[-2:]] == [["a", "3"], ["b", "0"]]
    counts = {"hit": 2, "rare": 1, **{f"no{place}": 0 for place in range(30)}}
    many = outcome_text(Outcome(rows=3, answers=3, counts=counts), job)
    assert "no0" not in many
    assert "rare" in many
    assert many.splitlines()[-1] == "30 of 32 labels were never the answer"
