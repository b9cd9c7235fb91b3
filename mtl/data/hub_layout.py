"""How a dataset repository lays out its files: which parquet files make which split."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from mtl.errors import RequestError

_SHARD = re.compile(r"-\d{5}-of-\d{5}(-[0-9a-f]+)?$")


def usual_places(config: str | None) -> list[str]:
    """Patterns of the places where files lie that no README declares."""
    return [f"{config}/*", f"data/{config}/*"] if config else ["*.parquet", "data/*", "default/*"]


def locate_splits(folder: Path, config: str | None) -> dict[str, list[Path]]:
    """Parquet files by split, in a folder laid out as a Hub repository.

    The README's ``configs`` decide where they name files for ``config``; otherwise the file names:
    ``<config>/<split>-00000-of-00001.parquet`` or ``<config>/<split>/0000.parquet``. A split that
    is declared but not there is absent.
    """
    found: dict[str, list[Path]] = {}
    for split, patterns in declared_files(folder, config).items():
        paths = sorted({path for pattern in patterns for path in folder.glob(pattern)})
        paths = [path for path in paths if path.suffix == ".parquet"]
        if paths:
            found[split] = paths
    if found:
        return found
    tried = [folder / config, folder / "data" / config] if config else [folder / "data", folder]
    for home in [*tried, folder / "default"] if not config else tried:
        for path in sorted(home.glob("*.parquet")):
            found.setdefault(_SHARD.sub("", path.stem), []).append(path)
        if not found:
            for path in sorted(home.glob("*/*.parquet")):
                split = path.parent.name.removeprefix("partial-")
                found.setdefault(split, []).append(path)
        if found:
            break
    return found


def declared_files(folder: Path, config: str | None) -> dict[str, list[str]]:
    """Split → glob patterns, as the README's front matter says; empty if it says nothing.

    Raises:
        RequestError: the front matter is damaged, or names files outside of the repository.
    """
    readme = folder / "README.md"
    if not readme.is_file():
        return {}
    text = readme.read_text(encoding="utf-8", errors="replace")
    match = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    try:
        content = yaml.safe_load(match.group(1)) if match else None
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise RequestError(f"The front matter of {readme} is no valid YAML: {reason}.") from error
    configs = content.get("configs") if isinstance(content, dict) else None
    entries = [entry for entry in configs or [] if isinstance(entry, dict)]
    chosen = [entry for entry in entries if config in (None, entry.get("config_name"))]
    if len(chosen) > 1:
        chosen = [entry for entry in chosen if entry.get("default") is True] or chosen
    if not chosen:
        return {}
    patterns: dict[str, list[str]] = {}
    for split, path in _by_split(chosen[0].get("data_files")):
        names = [path] if isinstance(path, str) else [str(name) for name in path or []]
        bad = [name for name in names if name.startswith("/") or ".." in Path(name).parts]
        if bad:
            raise RequestError(f"{readme} names {bad[0]!r}, which is outside of the repository.")
        patterns.setdefault(split, []).extend(names)
    return patterns


def _by_split(files: Any) -> Iterable[tuple[str, Any]]:
    """The three spellings that a README may use for ``data_files``."""
    if isinstance(files, dict):
        return [(str(split), path) for split, path in files.items()]
    if isinstance(files, list) and all(isinstance(item, dict) for item in files):
        return [(str(item.get("split", "train")), item.get("path")) for item in files]
    return [("train", files)] if files else []
