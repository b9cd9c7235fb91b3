"""A lazy public name that cannot be had says why."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("import sys\nsys.no_such_thing", "module 'sys' has no attribute 'no_such_thing'"),
        ("import no_such_package", "No module named 'no_such_package'"),
        ("from json import no_such_name", "cannot import name 'no_such_name' from 'json'"),
        ("1 / 0", "division by zero"),
        ("other = 1", "has no attribute 'wanted'"),
    ],
)
def test_a_failing_import_shows_its_own_error(
    content: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = tmp_path / "a_room"
    room.mkdir()
    (room / "inner.py").write_text(content)
    (room / "__init__.py").write_text(
        "from mtl.lazy import exports\n"
        '__all__, __getattr__, __dir__ = exports(__name__, {"inner": ["wanted"]})\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        with pytest.raises((ImportError, ZeroDivisionError)) as raised:
            exec("from a_room import wanted")
        assert said in str(raised.value)
        with pytest.raises(AttributeError, match="no attribute 'unknown'"):
            importlib.import_module("a_room").unknown  # noqa: B018
    finally:
        for name in [name for name in sys.modules if name.startswith("a_room")]:
            del sys.modules[name]
