"""Where rows come from: the Hub, a local mirror of it, files, or the embedded demo world."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.errors import RequestError

if TYPE_CHECKING:
    import pyarrow as pa

    from mtl.tasks.spec import TaskSpec


@dataclass(frozen=True)
class RawData:
    """The official splits of a task, read when asked for.

    Attributes:
        splits: their names.
        read: name → table.
        where: for messages: "data/nyu-mll/glue/rte".
        line: (split, row) → how to find the row in its file.
    """

    splits: Sequence[str]
    read: Callable[[str], pa.Table]
    where: str
    line: Callable[[str, int], str] = lambda split, row: f"row {row}"


def open_data(spec: TaskSpec, data_root: str | Path | None) -> RawData:
    """Find the data of a task; nothing is read yet.

    Raises:
        RequestError: not there, not to be reached, or of a format we do not read.
    """
    if "demo" in spec.data:
        return _demo(spec)
    if "files" in spec.data:
        return _files(spec, data_root)
    if data_root is not None:
        return _mirror(spec, Path(data_root))
    return _hub(spec)


def _demo(spec: TaskSpec) -> RawData:
    import pyarrow as pa

    from mtl.tasks.demo import TASKS, generate

    name = spec.data["demo"]
    if name not in TASKS:
        from mtl.errors import unknown

        raise unknown("demo task", name, TASKS)
    return RawData(
        ("train", "dev", "test"),
        lambda split: pa.Table.from_pylist(generate(name, split)),
        f"the demo world's {name}",
    )


def _mirror(spec: TaskSpec, root: Path) -> RawData:
    """``<root>/<repo>/[<config>/]<split>-*.parquet``, as the Hub lays repositories out."""
    repo = root / spec.data["repo"]
    config = spec.data.get("config")
    tried = [repo / config, repo / "data" / config] if config else [repo / "data", repo]
    for folder in tried:
        files: dict[str, list[Path]] = {}
        for path in sorted(folder.glob("*.parquet")):
            files.setdefault(path.stem.split("-")[0], []).append(path)
        if files:
            return RawData(tuple(files), partial(_read_split, files), str(folder))
    raise RequestError(
        f"Task {spec.id!r}: no parquet files under {tried[0]}. --data-root must hold the dataset "
        f"repository {spec.data['repo']!r} laid out as on the Hub "
        f"({spec.data['repo']}/{config or 'data'}/train-00000-of-00001.parquet, …). Without "
        "--data-root it is read from the Hub."
    )


def _read_split(files: Mapping[str, Sequence[Path]], split: str) -> pa.Table:
    return _read_parquet(files[split])


def _read_parquet(paths: Sequence[Path]) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    tables = []
    for path in paths:
        try:
            tables.append(parquet.read_table(path))
        except (OSError, pa.ArrowException) as error:
            raise RequestError(f"{path} cannot be read as parquet: {error}") from error
    return pa.concat_tables(tables) if len(tables) > 1 else tables[0]


def _hub(spec: TaskSpec) -> RawData:
    """The Hub through ``datasets``: parquet as published, or the Hub's conversion of a script."""
    import datasets

    repo, config = spec.data["repo"], spec.data.get("config")
    offline = os.environ.get("HF_HUB_OFFLINE") == "1"
    try:
        try:
            found = datasets.load_dataset(repo, config, revision=spec.data.get("revision"))
        except RuntimeError as error:
            if "script" not in str(error).lower():
                raise
            found = datasets.load_dataset(
                "parquet", data_files=_converted(repo, config), revision="refs/convert/parquet"
            )
    except Exception as error:
        state = " (HF_HUB_OFFLINE is set)" if offline else ""
        reason = " ".join(str(error).split())[:200]
        raise RequestError(
            f"Task {spec.id!r}: cannot read dataset {repo!r} ({config}) from the Hub or its local "
            f"cache{state}: {reason} Give a local mirror with --data-root DIR (and a model folder "
            "with --model FOLDER), or try the embedded suite: --suite demo."
        ) from error
    return RawData(
        tuple(found), lambda split: found[split].with_format("arrow")[:], f"Hub dataset {repo}"
    )


def _converted(repo: str, config: str | None) -> Mapping[str, list[str]]:
    """Files per split in the Hub's own parquet conversion of a repository."""
    from huggingface_hub import HfApi

    revision = "refs/convert/parquet"
    files: dict[str, list[str]] = {}
    for name in HfApi().list_repo_files(repo, repo_type="dataset", revision=revision):
        parts = name.split("/")
        if len(parts) == 3 and name.endswith(".parquet") and parts[0] == (config or "default"):
            split = parts[1].removeprefix("partial-")
            files.setdefault(split, []).append(
                f"hf://datasets/{repo}@refs%2Fconvert%2Fparquet/{name}"
            )
    if not files:
        raise FileNotFoundError(f"{repo} has no parquet conversion for {config!r}")
    return files


def _files(spec: TaskSpec, data_root: str | Path | None) -> RawData:
    base = spec.origin.parent if spec.origin else Path()
    paths = {}
    for split, name in spec.data["files"].items():
        path = Path(name).expanduser()
        tried = [path] if path.is_absolute() else [base / path, Path(data_root or ".") / path]
        found = next((candidate for candidate in tried if candidate.is_file()), None)
        if found is None:
            listed = " or ".join(str(candidate) for candidate in dict.fromkeys(tried))
            raise RequestError(
                f"Task {spec.id!r}: the file of split {split!r}, {listed}, is missing."
            )
        paths[split] = found
    return RawData(
        tuple(paths),
        lambda split: read_file(paths[split]),
        ", ".join(str(path) for path in paths.values()),
        # the first line of a CSV or TSV file holds the column names
        lambda split, row: (
            f"line {row + 2} of {paths[split]}"
            if paths[split].suffix in {".csv", ".tsv"}
            else f"row {row} of {paths[split]}"
        ),
    )


def read_file(path: Path) -> pa.Table:
    """Read a CSV, TSV, JSON (list of objects), JSONL or parquet file.

    Raises:
        RequestError: another suffix, or content that is not what the suffix says.
    """
    import pyarrow as pa
    import pyarrow.csv as csv

    try:
        if path.suffix in {".csv", ".tsv"}:
            return csv.read_csv(
                path,
                parse_options=csv.ParseOptions(
                    delimiter="\t" if path.suffix == ".tsv" else ",", newlines_in_values=True
                ),
                convert_options=csv.ConvertOptions(strings_can_be_null=False),
            )
        if path.suffix == ".parquet":
            return _read_parquet([path])
        if path.suffix in {".json", ".jsonl"}:
            text = path.read_text(encoding="utf-8")
            rows: Any = (
                json.loads(text)
                if path.suffix == ".json"
                else [json.loads(line) for line in text.splitlines() if line.strip()]
            )
            if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
                raise ValueError("expected one object per row")
            return pa.Table.from_pylist(rows)
    except (OSError, UnicodeDecodeError, ValueError, pa.ArrowException) as error:
        raise RequestError(f"{path} cannot be read as {path.suffix[1:]}: {error}") from error
    raise RequestError(
        f"{path}: files of type {path.suffix or 'unknown'} are not read; use .csv, .tsv, .json, "
        ".jsonl or .parquet."
    )
