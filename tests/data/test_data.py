"""Rows from files and mirrors to checked splits; what is wrong with them is said with its place."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from task_bench import ROWS, file_task, spec_of, table, three, write_parquet

from mtl.data import load_data
from mtl.engine.settings import RunSettings
from mtl.errors import RequestError
from mtl.runs.workspace import load_task_data
from mtl.tasks import load_task

TEXTS = (["the cat sees a bird", "no dog", "every teacher finds a stone", "the river is green"],)


def official(spec: Any, **options: Any) -> Any:
    return load_data(spec, protocol="official", **options)


def write_rows(path: Path, rows: Any) -> str:
    if path.suffix in {".csv", ".tsv"}:
        with path.open("w", newline="", encoding="utf-8-sig") as stream:
            writer = csv.DictWriter(
                stream, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ","
            )
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        write_parquet(path, rows)
    else:
        path.write_text("\n\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_files(suffix: str, tmp_path: Path) -> None:
    rows = [*ROWS, {"a": 'odd, "quoted"\nand\ttabbed ü', "b": "", "label": "no"}]
    splits = {
        name: write_rows(tmp_path / f"{name}.{suffix}", rows) for name in ("train", "dev", "test")
    }
    data = official(spec_of(data={"files": splits}))
    assert dict(data.sizes) == {"train": 5, "dev": 5, "test": 5}
    for split in data.splits.values():
        assert split.texts == ([row["a"] for row in rows], [row["b"] for row in rows])
        assert split.labels.tolist() == [1, 0, 1, 0, 0]


def test_files_stand_beside_the_task_file_or_below_the_data_root(tmp_path: Path) -> None:
    text = (
        "id: own/pair\ndata: {files: {train: t.csv, validation: v.csv}}\nkind: classification\n"
        'inputs: ["{a}"]\nlabels: [no, yes]\nmetrics: [accuracy]\n'
    )
    (tmp_path / "tasks").mkdir()
    (tmp_path / "root").mkdir()
    path = tmp_path / "tasks" / "pair.yaml"
    path.write_text(text)
    write_rows(tmp_path / "tasks" / "t.csv", ROWS * 5)
    write_rows(tmp_path / "root" / "v.csv", ROWS)
    spec = load_task(str(path))
    data = load_data(spec, data_root=tmp_path / "root")
    assert dict(data.sizes) == {"train": 18, "dev": 2, "test": 4}
    with pytest.raises(RequestError, match=r"own/pair.*'validation', .*tasks/v.csv.* is missing"):
        load_data(spec)


@pytest.mark.parametrize("where", ["files", "mirror"])
def test_a_process_that_goes_on_reads_files_again_that_were_written_since(
    where: str, tmp_path: Path
) -> None:
    """In a notebook, a second call after the data were mended is no run that is done already."""
    place = glue(tmp_path, "rte") if where == "mirror" else tmp_path

    def write(text: str) -> Any:
        rows = [{"a": f"{text} {i}", "b": "c", "label": ["yes", "no"][i % 2]} for i in range(40)]
        if where == "files":
            return file_task(tmp_path, three(rows))
        named = [
            {"sentence1": r["a"], "sentence2": "c", "label": i % 2} for i, r in enumerate(rows)
        ]
        for split in ("train", "validation", "test"):
            write_parquet(place / f"{split}-00000-of-00001.parquet", named)
        return load_task("glue/rte")

    workspace: Any = SimpleNamespace(data_root=str(tmp_path) if where == "mirror" else None)
    read = [
        load_task_data(write(text), workspace, "official", RunSettings())
        for text in ("before", "before", "afterwards")
    ]
    assert "before" in read[0].splits["train"].texts[0][0]
    assert read[1].fingerprint == read[0].fingerprint
    assert "afterwards" in read[2].splits["train"].texts[0][0]
    assert load_task_data(read[2].spec, workspace, "official", RunSettings()) is read[2]


def glue(root: Path, config: str) -> Path:
    return root / "nyu-mll" / "glue" / config


def hub_schema(names: list[str]) -> Any:
    """What ``datasets`` leaves in a parquet file with a ClassLabel."""
    import pyarrow as pa

    features = {"label": {"names": names, "_type": "ClassLabel"}}
    fields = [("premise", pa.string()), ("hypothesis", pa.string()), ("label", pa.int64())]
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})


def mnli(folder: Path, *, mismatched: bool) -> None:
    names = ["entailment", "neutral", "contradiction"]
    rows = [
        {"premise": f"premise {i}", "hypothesis": f"hypothesis {i}", "label": i % 3}
        for i in range(90)
    ]
    schema = hub_schema(names)
    for shard in range(3):  # written in another order than they are numbered
        number = 2 - shard
        write_parquet(
            folder / f"train-{number:05d}-of-00003.parquet",
            rows[30 * number : 30 * number + 30],
            schema,
        )
    write_parquet(folder / "validation_matched-00000-of-00001.parquet", rows[:12], schema)
    if mismatched:
        write_parquet(folder / "validation_mismatched-00000-of-00001.parquet", rows[12:20], schema)
    hidden = [{**row, "label": -1} for row in rows[:5]]
    write_parquet(folder / "test_matched-00000-of-00001.parquet", hidden, schema)


@pytest.mark.parametrize("mismatched", [True, False])
def test_a_mirror_with_shards_and_secondary_tests(tmp_path: Path, mismatched: bool) -> None:
    mnli(glue(tmp_path, "mnli"), mismatched=mismatched)
    data = load_data(load_task("glue/mnli"), data_root=tmp_path)
    sizes = {"train": 81, "dev": 9, "test": 12}
    if mismatched:
        assert dict(data.sizes) == {**sizes, "test_mismatched": 8}
        assert data.notes == ()
        assert data.splits["test_mismatched"].texts[0][0] == "premise 12"
    else:
        assert dict(data.sizes) == sizes
        assert data.notes == (
            "test_mismatched: split validation_mismatched is absent in the local mirror, skipped",
        )
    assert data.splits["test"].texts[0] == [f"premise {i}" for i in range(12)]
    numbers = sorted(
        int(text.split()[1]) for name in ("train", "dev") for text in data.splits[name].texts[0]
    )
    assert numbers == list(range(90))
    for split in data.splits.values():  # shards are put together in their order
        assert [int(t.split()[1]) % 3 for t in split.texts[0]] == split.labels.tolist()


def test_a_mirror_whose_readme_says_where_files_are(tmp_path: Path) -> None:
    home = tmp_path / "some" / "data"
    write_parquet(home / "parts" / "one.parquet", ROWS[:2])
    write_parquet(home / "parts" / "two.parquet", ROWS[2:])
    write_parquet(home / "held" / "x.parquet", ROWS)
    (home / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n"
        "    path: parts/*.parquet\n  - split: test\n    path: held/x.parquet\n"
        "  - {split: validation, path: held/x.parquet}\n---\nText.\n"
    )
    data = official(spec_of(), data_root=tmp_path)
    assert dict(data.sizes) == {"train": 4, "dev": 4, "test": 4}


def test_a_mirror_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"glue/rte.*config 'rte'.*nyu-mll/glue/rte/train-00000"):
        load_data(load_task("glue/rte"), data_root=tmp_path)
    with pytest.raises(RequestError, match=r"--data-root .*nowhere is no folder"):
        load_data(load_task("glue/rte"), data_root=tmp_path / "nowhere")


def test_official_test_labels_are_hidden(tmp_path: Path) -> None:
    rows = [{"sentence1": "a", "sentence2": f"b {i}", "label": i % 2} for i in range(20)]
    for split in ("train", "validation", "test"):
        write_parquet(glue(tmp_path, "rte") / f"{split}-00000-of-00001.parquet", rows)
    hidden = [{**row, "label": -1} for row in rows]
    write_parquet(glue(tmp_path, "rte") / "test-00000-of-00001.parquet", hidden)
    spec = load_task("glue/rte")
    with pytest.raises(RequestError, match=r"glue/rte.*'test'.*row 0: the label is -1.*scalearn"):
        official(spec, data_root=tmp_path)
    assert load_data(spec, data_root=tmp_path).sizes["train"] == 18  # never looks at it


@pytest.mark.parametrize("content", [b"", b"PAR1 is not enough", None])
def test_damaged_parquet(tmp_path: Path, content: bytes | None) -> None:
    path = write_parquet(tmp_path / "some" / "data" / "data" / "train-00000-of-00001.parquet", ROWS)
    for split in ("validation", "test"):
        write_parquet(path.with_name(f"{split}-00000-of-00001.parquet"), ROWS)
    path.write_bytes(path.read_bytes()[:-20] if content is None else content)
    with pytest.raises(
        RequestError, match=r"train-00000-of-00001\.parquet is damaged or no parquet"
    ):
        official(spec_of(), data_root=tmp_path)


def test_a_missing_column_lists_those_there_are(tmp_path: Path) -> None:
    spec = file_task(tmp_path, three(ROWS), inputs=["{a}", "{c}"])
    with pytest.raises(RequestError, match=r"'train' of .* no column 'c'; it has a, b, label"):
        official(spec)
    spec = file_task(tmp_path, three(ROWS), label_column="gold")
    with pytest.raises(RequestError, match=r"no column 'gold'; it has a, b, label"):
        official(spec)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_an_empty_split(tmp_path: Path, split: str) -> None:
    files = {name: write_rows(tmp_path / f"{name}.csv", rows) for name, rows in three(ROWS).items()}
    Path(files[split]).write_text("a,b,label\n")
    with pytest.raises(RequestError, match=rf"own/pair', split '{split}' of .* is empty"):
        official(spec_of(data={"files": files}))
    Path(files[split]).write_text("")
    with pytest.raises(RequestError, match=rf"{split}.csv is empty; its first line"):
        official(spec_of(data={"files": files}))


def test_an_empty_parquet_split(tmp_path: Path) -> None:
    files = {name: write_rows(tmp_path / f"{name}.parquet", ROWS) for name in ("train", "dev")}
    write_parquet(tmp_path / "test.parquet", [], table(ROWS).schema)
    spec = spec_of(data={"files": {**files, "test": str(tmp_path / "test.parquet")}})
    with pytest.raises(RequestError, match=r"split 'test' of .* is empty"):
        official(spec)


def test_a_missing_split(tmp_path: Path) -> None:
    spec = file_task(tmp_path, {"train": ROWS * 5})
    with pytest.raises(RequestError, match=r"none of the splits validation, dev; they have train"):
        load_data(spec)
    spec = file_task(tmp_path, {"validation": ROWS})
    with pytest.raises(RequestError, match=r"none of the splits train; they have validation"):
        load_data(spec)
    spec = file_task(tmp_path, {"train": ROWS * 5}, test={"main": "validation"})
    with pytest.raises(RequestError, match=r"split 'validation' is missing in .*which has train"):
        load_data(spec)


def test_training_rows_of_one_class(tmp_path: Path) -> None:
    yes = [row for row in ROWS if row["label"] == "yes"]
    spec = file_task(tmp_path, {"train": yes, "dev": ROWS, "test": ROWS})
    with pytest.raises(RequestError, match=r"own/pair': all 2 training rows .* label 'yes'"):
        official(spec)
    spec = file_task(tmp_path, {"train": ROWS, "dev": yes, "test": yes})
    assert official(spec).sizes["dev"] == 2  # odd, but it can be trained and scored
    spec = file_task(tmp_path, three(ROWS))
    with pytest.raises(RequestError, match="all 1 training rows"):
        official(spec, max_train_samples=1)


@pytest.mark.parametrize(
    ("rows", "place"),
    [
        ([*ROWS, {"a": "x", "b": "y", "label": "maybe"}], r"line 5 of .*: 'maybe' is none of"),
        ([*ROWS, {"a": "x", "b": "y", "label": None}], r"line 5 of .*: there is no label"),
    ],
)
def test_bad_rows_are_named_by_line(tmp_path: Path, rows: Any, place: str) -> None:
    spec = file_task(tmp_path, {"train": rows, "dev": ROWS, "test": ROWS})
    with pytest.raises(RequestError, match=rf"(?s)own/pair.*{place}"):
        official(spec)


def test_nan_in_a_regression_label(tmp_path: Path) -> None:
    rows = [{"a": f"text {i}", "label": 0.5 * i} for i in range(4)]
    kind: Any = {"kind": "regression", "labels": (), "metrics": ("pearson",), "inputs": ["{a}"]}
    files = {name: write_rows(tmp_path / f"{name}.parquet", rows) for name in ("train", "dev")}
    bad = [*rows, {"a": "x", "label": float("nan")}]
    files["test"] = write_rows(tmp_path / "test.parquet", bad)
    with pytest.raises(RequestError, match=r"row 4 of .*test.parquet: the label is nan"):
        official(spec_of(data={"files": files}, **kind))
    files["test"] = files["dev"]
    assert official(spec_of(data={"files": files}, **kind)).splits["train"].labels.tolist() == [
        0.0,
        0.5,
        1.0,
        1.5,
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", 'a,b,label\nx,y,no\nx,"y\n', r"t\.csv, line 3: .*quote"),
        ("t.csv", "a,b,label\nx,y,no\nx,y\n", r"line 3: 2 cells where the header names 3"),
        ("t.csv", "a,a,label\nx,y,no\n", r"line 1: two columns are called 'a'"),
        ("t.jsonl", '{"a": "x", "b": "y", "label": 0}\n{"a": \n', r"line 2: no valid JSON"),
        ("t.jsonl", '{"a": "x"}\n["x"]\n', r"line 2: each line must be an object"),
        ("t.jsonl", '{"a": "x"}\n{"a": 3}\n', r"line 2: column 'a' holds 3 \(int\)"),
        ("t.json", '{"a": ', r"no valid JSON"),
        ("t.json", '"a"', r"must hold a list of objects"),
        ("t.xlsx", "a", r"suffix '\.xlsx'; files that are read: \.csv"),
        ("t.csv", b"a,b,label\nx,\xe9t\xe9,no\n", r"line 2: the byte 0xe9 is not UTF-8.*cp1252"),
    ],
)
def test_broken_files(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    spec = spec_of(data={"files": {"train": str(path), "dev": str(path), "test": str(path)}})
    with pytest.raises(RequestError, match=f"(?s){message}"):
        official(spec)


def test_templates_join_columns_and_numbers(tmp_path: Path) -> None:
    rows = [{"w": "bank", "n": 3, "a": "x {w}", "label": label} for label in ("no", "yes")]
    spec = file_task(tmp_path, three(rows), inputs=["{w}: {a} ({n}) {{}}"])
    assert official(spec).splits["train"].texts == (["bank: x {w} (3) {}"] * 2,)


def test_limits_keep_the_first_rows_and_are_noted(tmp_path: Path) -> None:
    data = official(file_task(tmp_path, three(ROWS)), max_train_samples=2, max_eval_samples=3)
    assert dict(data.sizes) == {"train": 2, "dev": 3, "test": 3}
    assert data.splits["train"].texts[0] == TEXTS[0][:2]
    assert data.max_train_samples == 2
    assert "train: the first 2 rows only" in data.notes


def test_a_limit_that_cuts_nothing_is_not_noted(tmp_path: Path) -> None:
    spec = file_task(tmp_path, three(ROWS))
    data = official(spec, max_train_samples=4, max_eval_samples=9)
    assert data.notes == ()
    assert data.fingerprint == official(spec).fingerprint


def test_fingerprint_changes_with_text_label_and_order_only(tmp_path: Path) -> None:
    def fingerprint(rows: Any, **changes: Any) -> str:
        return official(file_task(tmp_path, three(rows), **changes)).fingerprint

    first = fingerprint(ROWS)
    text = [{**ROWS[0], "a": "the cat sees a bird."}, *ROWS[1:]]
    label = [{**ROWS[0], "label": "no"}, *ROWS[1:]]
    moved = [{**ROWS[0], "a": "the cat sees a birdno"}, {**ROWS[1], "a": " dog"}, *ROWS[2:]]
    order = [*ROWS[1:], ROWS[0]]
    found = [first, *map(fingerprint, (text, label, moved, order, ROWS[:3]))]
    assert len(set(found)) == len(found)
    extra = [{**row, "other": 1} for row in ROWS]
    assert fingerprint(extra) == fingerprint(ROWS, max_length=64) == first
    only_test = file_task(tmp_path, {**three(ROWS), "test": text})
    data = official(only_test)
    assert data.fingerprint != first
    assert data.fingerprints["train"] == data.fingerprints["dev"] != data.fingerprints["test"]


def test_fingerprint_is_the_same_in_another_process(tmp_path: Path) -> None:
    spec = file_task(tmp_path, three(ROWS))
    code = (
        "import json, sys; from mtl.tasks import TaskSpec; from mtl.data import load_data; "
        "spec = TaskSpec.from_dict(json.loads(sys.argv[1])); "
        "print(load_data(spec, protocol='official').fingerprint)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, json.dumps(spec.to_dict())],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert found.stdout.strip() == official(spec).fingerprint


def test_without_the_hub_one_fast_message_names_the_ways_out() -> None:
    start = time.perf_counter()
    with pytest.raises(RequestError) as caught:
        load_data(load_task("glue/rte"))
    assert time.perf_counter() - start < 5
    text = str(caught.value)
    for part in ("glue/rte", "nyu-mll/glue", "HF_HUB_OFFLINE", "--data-root DIR", "--suite demo"):
        assert part in text
    assert "\n" not in text


def test_an_unknown_protocol() -> None:
    with pytest.raises(RequestError, match=r"Unknown split protocol 'oficial'.*'official'"):
        load_data(load_task("demo/entail"), protocol="oficial")


def test_an_unknown_row_function_and_a_known_one(tmp_path: Path) -> None:
    from mtl.tasks import PREPARE

    with pytest.raises(RequestError, match="Unknown row function 'turn'"):
        official(file_task(tmp_path, three(ROWS), prepare="turn"))
    PREPARE.add("turn", lambda rows: rows.rename_columns(["b", "a", "label"]))
    try:
        data = official(file_task(tmp_path, three(ROWS), prepare="turn"))
    finally:
        del PREPARE._items["turn"]
    assert data.splits["train"].texts[1] == TEXTS[0]
