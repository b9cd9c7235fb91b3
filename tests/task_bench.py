"""Tasks over small files, for the tests of this room."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtl.tasks import TaskSpec

ROWS = [
    {"a": "the cat sees a bird", "b": "a bird", "label": "yes"},
    {"a": "no dog", "b": "the dog likes the old house", "label": "no"},
    {"a": "every teacher finds a stone", "b": "some friend", "label": "yes"},
    {"a": "the river is green", "b": "the river is not green today", "label": "no"},
]


def table(rows: Sequence[Mapping[str, Any]]) -> Any:
    import pyarrow as pa

    return pa.Table.from_pylist([dict(row) for row in rows])


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], schema: Any = None) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    whole = pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
    parquet.write_table(whole, path)
    return path


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def spec_of(**changes: Any) -> TaskSpec:
    values: dict[str, Any] = {
        "id": "own/pair",
        "data": {"repo": "some/data"},
        "kind": "classification",
        "inputs": ("{a}", "{b}"),
        "labels": ("no", "yes"),
        "metrics": ("accuracy",),
    }
    return TaskSpec(**{**values, **changes})


def file_task(folder: Path, splits: Mapping[str, Sequence[Mapping[str, Any]]], **changes: Any):
    """A task over JSON lines in ``folder``, one file per split."""
    files = {
        name: str(write_jsonl(folder / f"{name}.jsonl", rows)) for name, rows in splits.items()
    }
    return spec_of(data={"files": files}, **changes)


def three(rows: Sequence[Mapping[str, Any]]) -> dict[str, Sequence[Mapping[str, Any]]]:
    """The rows as train, validation and test alike."""
    return {"train": rows, "validation": rows, "test": rows}
