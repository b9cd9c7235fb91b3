"""Random and mutated files: always an answer or one clear error, never a traceback.

The examples are the same in every run; ``MTL_FUZZ=20000`` draws that many new ones.
"""

from __future__ import annotations

import json
import os
import struct
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attack_bench import raw_safetensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save
from zoo_bench import manifest, store

from mtl.cli.main import dispatch
from mtl.errors import MtlError, ZooError
from mtl.files import read_safetensors, sha256_json
from mtl.limits import Limits
from mtl.untrusted import parse_json, read_header
from mtl.words import printable
from mtl.zoo import check_foreign, open_zoo, read_predictions
from mtl.zoo.manifest import check_recorded
from mtl.zoo.names import clash, is_safe_name

MORE = int(os.environ.get("MTL_FUZZ", "0"))
EVERY = settings(
    max_examples=MORE or 200,
    deadline=None,
    derandomize=not MORE,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
FEWER = settings(EVERY, max_examples=MORE or 80)

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**45), 10**45)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["../x", "/etc/passwd", "F32", "\ud800", "con", "a" * 500, 2**63, -1])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


def as_bytes(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=True).encode()


@EVERY
@given(st.binary(max_size=300) | values.map(as_bytes))
def test_any_bytes_as_json(data: bytes) -> None:
    try:
        value = parse_json(data, "x", Limits(json_depth=6, json_values=40))
    except ZooError:
        return
    assert json.loads(data) == value
    assert len(sha256_json(value)) == 64  # nothing that canonical JSON cannot say
    json.dumps(value, ensure_ascii=False).encode()


@pytest.fixture(scope="module")
def good() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        entry = store(open_zoo(name), manifest())
        return json.loads((entry.folder / "manifest.json").read_text())


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value inside ``value``."""
    found = [path] if path else []
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            found += places(inner, (*path, key))
    return found


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    value = json.loads(json.dumps(value))
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    if new is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = new
    return value


@EVERY
@given(data=st.data())
def test_any_change_of_a_manifest(good: dict[str, Any], data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(places(good)))
    new = data.draw(values | st.just(...))
    text = as_bytes(changed(good, path, new))
    try:
        recorded = check_recorded(parse_json(text, "x"), "x")
    except ZooError:
        return
    # Taken as it is: the change is in nothing that counts, or it was none.
    assert recorded.digest == good["digest"]
    from mtl.zoo.card import card

    assert card(recorded.manifest).encode()
    recorded.manifest.headline()


@EVERY
@given(data=st.data())
def test_any_change_with_the_digest_made_right(good: dict[str, Any], data: st.DataObject) -> None:
    """The attacker who computes the digest: whatever passes can be listed, shown and described."""
    from mtl.zoo.card import card
    from mtl.zoo.manifest import Manifest, record

    path = data.draw(st.sampled_from([p for p in places(good) if p[0] != "digest"]))
    value = changed(good, path, data.draw(values))
    files = value.pop("files")
    value.pop("digest", None)
    try:
        described = Manifest.from_dict(value)
    except ZooError:
        return
    try:
        text = as_bytes(record(described, files))
    except (ValueError, TypeError, KeyError, AttributeError):
        return  # a file table that no digest can be made of; the test above reads such
    try:
        recorded = check_recorded(parse_json(text, "x"), "x")
    except ZooError:
        return
    assert card(recorded.manifest).encode()
    assert recorded.manifest.headline() is None or "value" in recorded.manifest.headline()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "zoo" / "a"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_bytes(text)
        for command in (["ls"], ["ls", "--json"], ["ls", "--sort", "metric"], ["fsck"]):
            assert dispatch("zoo", [*command, "--zoo", str(folder.parent)]) in {0, 1}
        assert sorted(path.name for path in Path(name).iterdir()) == ["zoo"]


headers = st.dictionaries(
    st.text(max_size=6) | st.just("__metadata__"),
    values
    | st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["F32", "F16", "BF16", "I64", "BOOL", "X9"]) | scalars,
            "shape": st.lists(st.integers(-2, 5) | scalars, max_size=4),
            "data_offsets": st.lists(st.integers(-4, 64) | scalars, max_size=3),
        }
    ),
    max_size=3,
)


@EVERY
@given(header=headers, rest=st.integers(0, 64))
def test_any_header(header: dict[str, Any], rest: int, tmp_path: Path) -> None:
    raw_safetensors(tmp_path / "x", as_bytes(header), bytes(rest))
    try:
        found = read_header(tmp_path / "x", "x")
    except ZooError:
        return
    covered = sorted((info.begin, info.end) for info in found.tensors.values())
    assert sum(end - begin for begin, end in covered) == rest
    assert all(one[1] == two[0] for one, two in pairwise(covered))


@EVERY
@given(data=st.data())
def test_any_damage_of_a_tensor_file(tmp_path: Path, data: st.DataObject) -> None:
    """What we take, the library reads; what it refuses, we refuse."""
    content = bytearray(
        save({"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(2, np.int64)})
    )
    for _ in range(data.draw(st.integers(1, 4))):
        index = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "insert", "length"])):
            case "flip":
                content[index] ^= data.draw(st.integers(1, 255))
            case "cut":
                del content[index:]
            case "insert":
                content[index:index] = data.draw(st.binary(min_size=1, max_size=8))
            case "length":
                content[:8] = struct.pack("<Q", data.draw(st.integers(0, 2**64 - 1)))
        if not content:
            break
    path = tmp_path / "x.safetensors"
    path.write_bytes(bytes(content))
    try:
        header = read_header(path, "x")
    except ZooError:
        with pytest.raises(ZooError):
            read_safetensors(path)
        return
    tensors, _ = read_safetensors(path)
    assert set(tensors) == set(header.tensors)
    if all(info.dtype not in {"BF16", "F8_E4M3", "F8_E5M2"} for info in header.tensors.values()):
        arrays = load_file(path)
        assert {k: v.shape for k, v in arrays.items()} == {
            k: info.shape for k, info in header.tensors.items()
        }


@FEWER
@given(data=st.data())
def test_any_predictions(tmp_path: Path, data: st.DataObject) -> None:
    kind = st.sampled_from([np.int64, np.float32, np.float16, np.uint8])
    shape = st.lists(st.integers(0, 4), min_size=0, max_size=3).map(tuple)
    arrays = {
        name: np.zeros(data.draw(shape), data.draw(kind))
        for name in data.draw(
            st.sets(st.sampled_from(["row", "label", "prediction", "scores", "x"]), min_size=3)
        )
    }
    (tmp_path / "predictions.safetensors").write_bytes(save(arrays))
    try:
        found = read_predictions(tmp_path)
    except ZooError:
        return
    assert len(found.row) == len(found.label) == len(found.scores)


names = st.text(max_size=12) | st.sampled_from(["..", "a/b", "NUL", "a.", ".a", "ﬁ", "a\\b", "~"])


@EVERY
@given(st.lists(names, max_size=5))
def test_any_file_name(tmp_path: Path, parts: list[str]) -> None:
    """What passes stays below its root on every system, and prints on one line."""
    for name in filter(is_safe_name, parts):
        joined = tmp_path / name
        assert joined.parent == tmp_path
        assert joined.resolve().is_relative_to(tmp_path.resolve())
        assert printable(name) == name
        assert name.isascii()
    safe = [name for name in parts if is_safe_name(name)]
    folded = {name.casefold() for name in safe}
    assert (clash(safe) is None) == (len(folded) == len(set(safe)))


@FEWER
@given(data=st.data())
def test_any_folder(tmp_path: Path, data: st.DataObject) -> None:
    """A folder of arbitrary small files: findings or nothing, and nothing outside it."""
    root = Path(tempfile.mkdtemp(dir=tmp_path))
    folder = root / "entry"
    folder.mkdir()
    known = ["manifest.json", "adapter_config.json", "adapter.safetensors", "README.md", "x.bin"]
    for name in data.draw(st.sets(st.sampled_from(known) | names, max_size=4)):
        try:
            (folder / name).write_bytes(data.draw(st.binary(max_size=60) | values.map(as_bytes)))
        except (OSError, ValueError):
            continue
    inside = {path.name for path in root.iterdir()}
    for problem in check_foreign(folder):
        assert str(problem).encode()
    for command in (["ls"], ["fsck"], ["ls", "--json"]):
        try:
            assert dispatch("zoo", [*command, "--zoo", str(root)]) in {0, 1}
        except MtlError as error:
            pytest.fail(f"not one message: {error}")
    assert {path.name for path in root.iterdir()} == inside
