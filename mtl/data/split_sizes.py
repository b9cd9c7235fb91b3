"""How many rows a task's splits have, as far as that is known without download or long reading."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mtl.data.hub_layout import locate_splits
from mtl.data.origins import demo_files, open_data, split_files
from mtl.errors import MtlError
from mtl.files import DATA_ROOT, user_path

if TYPE_CHECKING:
    from mtl.tasks.spec import TaskSpec

LARGEST = 32 << 20
"""Bytes of a text file up to which its rows are counted."""


def known_sizes(spec: TaskSpec, data_root: str | Path | None) -> dict[str, int] | None:
    """Official split → rows, or None where it is not known.

    Parquet files (the demo's, of a mirror, of the local cache of the Hub) by their footers, text
    files by reading them.
    """
    try:
        if "demo" in spec.data:
            return {split: _footer(file) for split, file in demo_files(spec.data["demo"]).items()}
        if "files" in spec.data:
            return _of_files(spec, data_root)
        folder = _folder(spec, data_root)
        if folder is None:
            return None
        splits = locate_splits(folder, spec.data.get("config"))
        return {name: sum(map(_footer, paths)) for name, paths in splits.items()} or None
    except (MtlError, OSError):  # `check` says what is wrong with it
        return None


def _of_files(spec: TaskSpec, data_root: str | Path | None) -> dict[str, int] | None:
    paths = split_files(spec, user_path(data_root, DATA_ROOT) if data_root else None)
    if any(path.suffix != ".parquet" and path.stat().st_size > LARGEST for path in paths.values()):
        return None
    if all(path.suffix == ".parquet" for path in paths.values()):
        return {name: _footer(path) for name, path in paths.items()}
    raw = open_data(spec, data_root)
    return {split: len(raw.read(split)) for split in raw.splits}


def _folder(spec: TaskSpec, data_root: str | Path | None) -> Path | None:
    if data_root is not None:
        return user_path(data_root, DATA_ROOT) / spec.data["repo"]
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                spec.data["repo"],
                repo_type="dataset",
                revision=spec.data.get("revision"),
                local_files_only=True,
            )
        )
    except (LocalEntryNotFoundError, ValueError):
        return None


def _footer(path: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        return int(parquet.read_metadata(path).num_rows)
    except pa.ArrowException as error:
        raise OSError(str(error)) from error
