"""Lock files as nobody should write them: read, or one clear error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtl.cli.main import dispatch
from mtl.errors import MtlError
from mtl.hub.lockfile import Locked, read_lock, write_lock
from mtl.zoo.names import is_safe_name

EVERY = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**45), 10**45)
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["../x", "/etc/passwd", "a/b", "a" * 64, "b" * 40, "user/name", "\ud800"])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)
rows = st.fixed_dictionaries(
    {
        "ref": scalars,
        "digest": st.sampled_from(["a" * 64]) | scalars,
        "repository": st.sampled_from(["user/name", None]) | scalars,
        "revision": st.sampled_from(["b" * 40, None]) | scalars,
    }
)
files = (
    st.fixed_dictionaries(
        {
            "schema_version": st.just(1) | scalars,
            "entries": st.lists(rows | values, max_size=3) | values,
        }
    )
    | values
)
content = files.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=80)


def outcome(read: Callable[[], Any]) -> Any:
    """What reading gives; one of our errors is None, anything else fails the test."""
    try:
        return read()
    except MtlError:
        return None


@EVERY
@given(data=content)
def test_any_lock(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "mtl.lock"
    path.write_bytes(data)
    found = outcome(lambda: read_lock(path))
    if found is None:
        return
    for item in found:
        assert all(is_safe_name(part) for part in item.ref.split("/"))
        assert len(item.digest) == 64
    write_lock(path, found)
    assert read_lock(path) == sorted(found, key=lambda item: item.ref)


@settings(EVERY, max_examples=50)
@given(data=st.data())
def test_any_change_of_a_good_lock(data: st.DataObject, tmp_path: Path) -> None:
    path = tmp_path / "mtl.lock"
    write_lock(path, [Locked("a/b/c/d/seed0-01234567", "a" * 64, "user/name", "b" * 40)])
    text = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        index = data.draw(st.integers(0, len(text) - 1))
        text[index] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(text))
    outcome(lambda: read_lock(path))


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b'{"schema_version": 1, "entries": ' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"schema_version": 1, "schema_version": 1, "entries": []}',
        b'{"schema_version": 1e999, "entries": []}',
        b'{"schema_version": 1, "entries": [{"ref": "../../x", "digest": "' + b"a" * 64 + b'"}]}',
        b"\xff\xfe\x00",
        b" " * (9 << 20),
    ],
)
def test_a_hostile_lock_ends_in_one_message(
    data: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mtl.lock"
    path.write_bytes(data)
    zoo = tmp_path / "zoo"
    assert dispatch("zoo", ["pull", "--lock", str(path), "--zoo", str(zoo)]) in {1, 2}
    said = capsys.readouterr().err
    assert said.count("error: ") == 1
    assert "Traceback" not in said
    assert not zoo.exists() or not list(zoo.rglob("*"))
    assert sorted(item.name for item in tmp_path.iterdir()) in (["mtl.lock"], ["mtl.lock", "zoo"])
