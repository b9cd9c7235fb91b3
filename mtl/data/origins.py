"""Where rows come from: the Hub, a local mirror of it, files, or the embedded demo world.

Every source ends up as named splits of arrow tables. Repositories are read from their parquet
files, found by the splits that their README declares or by file names, whether they lie in a
mirror below ``--data-root`` or in the local cache of the Hub; no code of a repository is run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mtl.data.hub_layout import declared_files, locate_splits, usual_places
from mtl.data.nested import with_fields
from mtl.data.textfiles import READERS, read_text_file
from mtl.errors import MtlError, RequestError, unknown
from mtl.files import DATA_ROOT, user_path
from mtl.tasks.dialect import Dialect

if TYPE_CHECKING:
    import pyarrow as pa

    from mtl.tasks.spec import TaskSpec

CONVERTED = "refs/convert/parquet"
"""The Hub's own parquet copy of repositories that carry a loading script."""


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
    root = user_path(data_root, DATA_ROOT) if data_root is not None else None
    if root is not None and not root.is_dir():
        raise RequestError(f"--data-root {data_root} is no folder.")
    raw = _source(spec, root)
    wanted = [*spec.columns, *spec.gold_columns, *spec.table_columns]
    return replace(raw, read=lambda split: with_fields(raw.read(split), wanted))


def marks_of_data(spec: TaskSpec, data_root: str | Path | None) -> tuple[tuple[str, int, int], ...]:
    """Path, time and size of the files of a task: equal as long as nobody wrote them.

    Nothing for the Hub's, whose revisions stay, and where files are missing, which who reads them
    says.
    """
    try:
        root = user_path(data_root, DATA_ROOT) if data_root is not None else None
        if "files" in spec.data:
            paths = list(split_files(spec, root).values())
        elif "demo" in spec.data or root is None:
            return ()
        else:
            splits = locate_splits(root / spec.data["repo"], spec.data.get("config"))
            paths = [path for parts in splits.values() for path in parts]
        return tuple((str(p), (at := p.stat()).st_mtime_ns, at.st_size) for p in paths)
    except (MtlError, OSError):
        return ()


def _source(spec: TaskSpec, root: Path | None) -> RawData:
    if "demo" in spec.data:
        return _demo(spec)
    if "files" in spec.data:
        return _files(spec, root)
    folder, splits = _download(spec) if root is None else _mirror(spec, root)
    return RawData(tuple(splits), lambda split: read_parquet(splits[split]), str(folder))


DEMO = Path(__file__).parent / "demo"
"""``<task>/<split>.parquet``: the demo world's rows, which ``scripts/make_demo.py`` wrote."""


def demo_files(name: str) -> dict[str, Path]:
    """Split → file of a task of the demo world.

    Raises:
        RequestError: there is no such task.
    """
    tasks = sorted(path.name for path in DEMO.iterdir() if path.is_dir())
    if name not in tasks:
        raise unknown("demo task", name, tasks)
    return {split: DEMO / name / f"{split}.parquet" for split in ("train", "dev", "test")}


def _demo(spec: TaskSpec) -> RawData:
    name = spec.data["demo"]
    files = demo_files(name)
    read = lambda split: read_parquet([files[split]])  # noqa: E731
    return RawData(tuple(files), read, f"the demo world's {name}")


def _mirror(spec: TaskSpec, root: Path) -> tuple[Path, dict[str, list[Path]]]:
    """``<root>/<repo>/``, laid out as the Hub lays repositories out."""
    repo, config = spec.data["repo"], spec.data.get("config")
    folder = root / repo
    splits = locate_splits(folder, config)
    if not splits:
        raise RequestError(
            f"Task {spec.id!r}: no parquet files of {_named(config)} in {folder}. --data-root must "
            f"hold the dataset repository {repo!r} laid out as on the Hub "
            f"({repo}/{config or 'data'}/train-00000-of-00001.parquet, …). Without --data-root it "
            "is read from the Hub."
        )
    return folder / config if config and (folder / config).is_dir() else folder, splits


def _named(config: str | None) -> str:
    return f"config {config!r}" if config else "its only config"


def _download(spec: TaskSpec) -> tuple[Path, dict[str, list[Path]]]:
    """The parquet files of one config, from the Hub or its local cache.

    The layer below ``datasets.load_dataset``: it downloads the parquet of this config only, makes
    no second copy, and gives up at once where there is no network.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repo, config = spec.data["repo"], spec.data.get("config")
    revision = spec.data.get("revision")
    doing = f"Task {spec.id!r}: cannot get {_named(config)} of the dataset {repo!r} from the Hub"
    local = (
        "Give a local mirror with --data-root DIR (and a model folder with --model FOLDER), or try "
        "the embedded suite: --suite demo."
    )

    def fetch(revision: str | None, patterns: Sequence[str]) -> Path:
        return Path(
            snapshot_download(
                repo, repo_type="dataset", revision=revision, allow_patterns=list(patterns)
            )
        )

    try:
        folder = fetch(revision, ["README.md"])
        declared = [name for names in declared_files(folder, config).values() for name in names]
        folder = fetch(revision, ["README.md", *(declared or usual_places(config))])
        splits = locate_splits(folder, config)
        if not splits and revision is None:
            # No parquet of its own (a loading script, CSV files): the Hub's conversion.
            folder = fetch(CONVERTED, [f"{config or 'default'}/*"])
            splits = locate_splits(folder, config or "default")
    except MtlError:
        raise
    except GatedRepoError as error:
        raise RequestError(
            f"{doing}: it asks for consent. Accept its terms on its page and log in with "
            "`hf auth login`."
        ) from error
    except LocalEntryNotFoundError as error:
        offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
        why = "HF_HUB_OFFLINE is set" if offline else "the Hub cannot be reached"
        raise RequestError(f"{doing}: {why}, and the local cache lacks it. {local}") from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise RequestError(
            f"{doing}: there is no such dataset, or no revision {revision or 'main'!r} of it. "
            f"Mend `data` in {spec.where}; for a private one log in with `hf auth login`."
        ) from error
    except OSError as error:  # requests' errors are OSErrors, too
        reason = " ".join(str(error).split())[:200]
        raise RequestError(f"{doing}: {reason}. Try again. {local}") from error
    if not splits:
        raise RequestError(f"{doing}: there are no parquet files of it in {folder}. {local}")
    return folder, splits


def read_parquet_pieces(path: Path, most: int) -> Iterator[pa.Table]:
    """The rows of a parquet file, up to ``most`` at a time.

    Raises:
        RequestError: damaged, or no parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(most):
                yield pa.Table.from_batches([batch])
    except (pa.ArrowException, OSError) as error:
        raise RequestError(f"Cannot read {path}: {error}.") from error


def read_parquet(paths: Sequence[Path]) -> pa.Table:
    """The rows of one split.

    Raises:
        RequestError: damaged, or files with different columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    tables = []
    for path in paths:
        try:
            # Not read_table(): that takes a folder called "a=b" above the file for a column.
            with parquet.ParquetFile(path) as file:
                tables.append(file.read())
        except (OSError, pa.ArrowException) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise RequestError(f"{path} is damaged or no parquet file: {reason}.") from error
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise RequestError(
            f"{', '.join(path.name for path in paths)} in {paths[0].parent} belong to one split "
            f"but differ in their columns: {error}."
        ) from error


def split_files(spec: TaskSpec, root: Path | None) -> dict[str, Path]:
    """The files of a task over files, by split.

    Raises:
        RequestError: one is missing, or of a format we do not read.
    """
    base = spec.origin.parent if spec.origin else Path()
    paths = {}
    for split, name in spec.data["files"].items():
        path = user_path(name, f"data.files of {spec.id}")
        tried = [path] if path.is_absolute() else [base / path, (root or Path()) / path]
        found = next((candidate for candidate in tried if candidate.is_file()), None)
        if found is None:
            listed = " or ".join(str(candidate) for candidate in dict.fromkeys(tried))
            raise RequestError(
                f"Task {spec.id!r}: the file of split {split!r}, {listed}, is missing."
            )
        if found.suffix.lower() not in {*READERS, ".parquet"}:
            raise RequestError(f"Task {spec.id!r}: {_unread(found)}")
        paths[split] = _plain(found)
    return paths


def _plain(path: Path) -> Path:
    """``data/x.csv`` for ``my/../data/x.csv``, as messages show it, where it is the same file."""
    plain = Path(os.path.normpath(path))
    return plain if plain.is_file() and plain.samefile(path) else path


def _files(spec: TaskSpec, root: Path | None) -> RawData:
    paths = split_files(spec, root)
    lines: dict[str, Sequence[int]] = {}  # filled when a split is read

    def line(split: str, row: int) -> str:
        if lines.get(split):
            return f"line {lines[split][row]} of {paths[split]}"
        return f"row {row} of {paths[split]}"

    return RawData(
        tuple(paths),
        partial(_read_file, paths, lines, Dialect.from_data(spec.data)),
        ", ".join(str(path) for path in paths.values()),
        line,
    )


def _read_file(
    paths: Mapping[str, Path], lines: dict[str, Sequence[int]], dialect: Dialect, split: str
) -> pa.Table:
    table, lines[split] = read_file(paths[split], dialect)
    return table


def read_file(path: Path, dialect: Dialect | None = None) -> tuple[pa.Table, Sequence[int]]:
    """A file of rows by its suffix, and the line at which each row starts (of text files).

    Args:
        dialect: what the suffix does not say; parquet files say all of it themselves.

    Raises:
        RequestError: missing, of a format we do not read, or broken.
    """
    if path.suffix.lower() == ".parquet":
        return read_parquet([path]), ()
    if path.suffix.lower() not in READERS:
        raise RequestError(_unread(path))
    return read_text_file(path, dialect)


def _unread(path: Path) -> str:
    return (
        f"{path} has the suffix {path.suffix!r}; files that are read: {', '.join(READERS)}, "
        ".parquet."
    )
