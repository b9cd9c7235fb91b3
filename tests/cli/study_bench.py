"""Studies over the tiny suite, for the tests of studies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

SHORT = {"max_steps": 4, "eval_every": 2}

STUDY: dict[str, Any] = {
    "suite": "mini",
    "seeds": [0, 1],
    "set": SHORT,
    "train": [{"method": ["pfeiffer"]}],
    "compose": [{"method": ["scalearn"], "targets": ["same"], "source_seeds": "same"}],
    "joint": [{"method": ["adapter-m"], "seeds": [0]}],
}


def write_study(folder: Path, *without: str, **changes: Any) -> Path:
    """The study of this file, changed, as ``small.yaml``."""
    content = {key: value for key, value in STUDY.items() if key not in without}
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump({**content, **changes}, sort_keys=False))
    return path


def first_lines(runs: Path) -> dict[Path, str]:
    """Of runs that were evaluated, with their time: who was begun anew has another one."""
    texts = {path: path.read_text() for path in runs.glob("*/events.jsonl")}
    return {path: text.splitlines()[0] for path, text in texts.items() if text}
