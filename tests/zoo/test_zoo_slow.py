"""The long scripts, shortened: many processes at once, and kills at any moment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def script(path: str, *argv: str) -> Any:
    done = subprocess.run(
        [sys.executable, ROOT / path, *argv, "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_many_processes_on_one_zoo() -> None:
    found = script("scripts/zoo_stress.py", "--seconds", "10", "--processes", "4")
    assert found["wrong"] == found["fsck"] == found["temporaries left"] == []
    assert sum(found["operations"].values()) > 50


@pytest.mark.slow
def test_kills_lose_nothing() -> None:
    found = script("scripts/zoo_kill.py", "--kills", "20", "--seed", "5")
    assert found["lost"] == 0
    assert found["kills"] == 20


@pytest.mark.slow
def test_a_zoo_of_hundreds() -> None:
    line = ("--only", "entries", "--sizes", "10", "300", "--repeat", "1")
    found = script("benchmarks/growth.py", *line)["entries"]
    assert found["zoo ls, the first"]["sizes"] == [10, 300]
    assert found["zoo ls, after the first"]["seconds"][-1] < 5
    assert len(found["compose --sources all --dry-run"]["mb"]) == 2
