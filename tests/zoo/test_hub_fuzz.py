"""Any JSON as index or config: a value, or one of our errors (locks: attacks)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtl.errors import MtlError, RequestError, ZooError
from mtl.hub.index import read_index
from mtl.hub.recognise import recognise

QUIET = settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
WORDS = st.sampled_from(
    [
        "schema_version",
        "entries",
        "ref",
        "digest",
        "repository",
        "revision",
        "summary",
        "a/b",
        "0" * 64,
        "0" * 40,
        "ada/zoo",
        "../x",
        ".",
    ]
)
TEXT = WORDS | st.text(max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=12,
)
ROWS = st.fixed_dictionaries(
    dict.fromkeys(("ref", "digest", "repository", "revision"), TEXT | VALUES)
)


@QUIET
@given(
    st.dictionaries(TEXT, ROWS | VALUES, max_size=3).map(
        lambda rows: json.dumps({"schema_version": 1, "entries": rows}).encode()
    )
    | VALUES.map(lambda value: json.dumps(value).encode())
)
def test_any_index(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "mtl_zoo.json"
    path.write_bytes(data)
    try:
        found = read_index(path, "ada/zoo")
    except ZooError:
        return
    assert all(".." not in item.ref and ".." not in item.path for item in found.values())


KEYS = st.sampled_from(
    [
        "architecture",
        "reduction_factor",
        "non_linearity",
        "configs",
        "flat",
        "leave_out",
        "r",
        "prefix_length",
        "phm_layer",
        "phm_dim",
        "dropout",
        "mh_adapter",
        "output_adapter",
    ]
)


@QUIET
@given(
    st.dictionaries(
        KEYS,
        VALUES | st.sampled_from(["lora", "union", "prefix_tuning", "reft", "relu", 16]),
        max_size=9,
    )
    | VALUES
)
def test_any_config(config: Any) -> None:
    with pytest.raises(MtlError) as error:  # a config of ours needs more keys than these
        recognise(config, 48)
    assert isinstance(error.value, RequestError)
